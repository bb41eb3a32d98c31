//! File systems and the room on them.

pub mod space;
