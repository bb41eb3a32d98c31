//! File systems and the room on them.

pub(crate) mod space;
