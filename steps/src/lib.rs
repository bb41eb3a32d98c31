//! What a step is, and every kind of step. Knows nothing of runs.

mod assert;
mod command;
mod disk;
mod file;
mod gate;
mod manual;
pub mod process;
mod program;
pub mod redact;
pub mod reference;
pub mod setting;
mod shell;
mod sql;
pub mod sqlite;
#[cfg(test)]
mod stage;
pub mod step;
mod wait;
pub mod world;

use step::Kind;

/// Every kind, in the order of the reference.
pub const KINDS: &[Kind] = &[
    command::KIND,
    shell::KIND,
    wait::KIND,
    assert::KIND,
    manual::KIND,
    gate::approval::KIND,
    file::write::KIND,
    file::copy::KIND,
    file::r#move::KIND,
    file::remove::KIND,
    file::checksum::KIND,
    file::verify::KIND,
    disk::space::KIND,
    sql::KIND,
    sqlite::health::KIND,
    sqlite::backup::KIND,
    sqlite::integrity::KIND,
    sqlite::compare::KIND,
    sqlite::restore::KIND,
];

/// The kind of this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The Debian package that brings a program, where that is known.
pub fn package_of(program: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(name, _)| *name == program).map(|(_, package)| *package)
}

const PACKAGES: &[(&str, &str)] = &[
    ("barman", "barman"),
    ("curl", "curl"),
    ("jq", "jq"),
    ("mariadb", "mariadb-client"),
    ("mariadb-backup", "mariadb-backup"),
    ("mysqldump", "mariadb-client"),
    ("pg_amcheck", "postgresql-15"),
    ("pg_basebackup", "postgresql-client-15"),
    ("pg_dump", "postgresql-client-15"),
    ("pg_restore", "postgresql-client-15"),
    ("pg_verifybackup", "postgresql-client-15"),
    ("pgbackrest", "pgbackrest"),
    ("psql", "postgresql-client-15"),
    ("redis-cli", "redis-tools"),
    ("restic", "restic"),
    ("rsync", "rsync"),
    ("setpriv", "util-linux"),
    ("sqlite3", "sqlite3"),
    ("sudo", "sudo"),
    ("tar", "tar"),
    ("zstd", "zstd"),
];
