//! Steps for SQLite databases.

pub(crate) mod database;
pub(crate) mod pages;
pub(crate) mod place;

pub(crate) mod backup;
pub(crate) mod compare;
pub(crate) mod health;
pub(crate) mod integrity;
pub(crate) mod restore;

#[cfg(test)]
pub(crate) mod bench;
