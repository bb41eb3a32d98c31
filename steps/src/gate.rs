//! Gates: steps that wait for people.

pub(crate) mod approval;
