//! One integration binary: behaviour through the real `runsheet`, a module per subject.

#![allow(clippy::disallowed_methods, reason = "tests touch the machine from outside")]

mod check;
mod docs;
mod examples;
mod house;
mod kinds;
mod model;
mod runs;
mod stage;
