//! One integration binary: behaviour through the real `runsheet`, a module per subject.

mod docs;
mod house;
mod kinds;
mod model;
mod runs;
mod stage;
