//! Files and trees of files.

pub mod write;
pub mod copy;
pub mod r#move;
pub mod remove;
pub mod checksum;
pub mod verify;

mod attributes;
mod digest;
mod kept;
mod manifest;
mod place;
mod transfer;
mod walk;
