//! Files and trees of files.

pub(crate) mod checksum;
pub(crate) mod copy;
pub(crate) mod r#move;
pub(crate) mod remove;
pub(crate) mod verify;
pub(crate) mod write;

mod attributes;
mod digest;
mod kept;
mod manifest;
mod place;
#[cfg(test)]
mod stage;
mod transfer;
mod walk;
