//! One integration binary: behaviour through the real `runsheet`, a module per subject.

mod house;
mod kinds;
mod runs;
mod stage;
