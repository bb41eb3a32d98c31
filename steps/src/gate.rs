//! Gates: steps that wait for people.

pub mod approval;
