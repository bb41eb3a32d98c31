//! The library of playbooks: TOML, embedded in the binary.

/// Every playbook of the library: its name as `uses` says it, and its text.
pub const LIBRARY: &[(&str, &str)] = &[];
