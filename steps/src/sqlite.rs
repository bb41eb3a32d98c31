//! Steps for SQLite databases.

pub(crate) mod database;
pub(crate) mod place;
pub(crate) mod pages;

pub(crate) mod health;
pub(crate) mod backup;
pub(crate) mod integrity;
pub(crate) mod restore;
pub(crate) mod compare;

#[cfg(test)]
pub(crate) mod bench;
