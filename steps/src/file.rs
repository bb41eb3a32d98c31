//! Files and trees of files.

pub(crate) mod write;
pub(crate) mod copy;
pub(crate) mod r#move;
pub(crate) mod remove;
pub(crate) mod checksum;
pub(crate) mod verify;

mod attributes;
mod digest;
mod kept;
mod manifest;
mod place;
mod transfer;
mod walk;
#[cfg(test)]
mod stage;
