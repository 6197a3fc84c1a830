//! Server settings: what all servers share, and how a setting is written.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Small and quick, for thrown away data; everything else as PostgreSQL ships it.
/// Each database has a worker of ours, so there must be room for those.
pub const COMMON: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("fsync", "off"),
    ("shared_buffers", "32MB"),
    ("max_connections", "60"),
    ("max_worker_processes", "40"),
    ("log_line_prefix", "%m [%p] %b %e %u@%d "),
    ("timezone", "UTC"),
];

/// Appends settings to a `postgresql.conf`; the last one of a name counts.
pub fn append<K: AsRef<str>, V: AsRef<str>>(data: &Path, settings: &[(K, V)]) {
    let file = data.join("postgresql.conf");
    let mut file = OpenOptions::new().append(true).open(file).expect("data directory exists");
    for (name, value) in settings {
        let value = value.as_ref().replace('\\', r"\\").replace('\'', "''");
        writeln!(file, "{} = '{value}'", name.as_ref()).expect("disk has space");
    }
}

/// A path as a setting's text.
pub fn text(path: &Path) -> String {
    path.to_str().expect("our paths are ASCII").to_owned()
}

/// How databases get the extension. The environment can say it otherwise, to run any test on the
/// functions of an older version (`TEST_EXTENSION="CREATE EXTENSION meshhook_secrets VERSION '0.1.0'"`).
pub fn create_extension() -> String {
    std::env::var("TEST_EXTENSION").unwrap_or_else(|_| "CREATE EXTENSION meshhook_secrets".into())
}

/// `shared_preload_libraries` with the extension: alone, or between what the environment says, to
/// run any test in the company of other libraries (`TEST_PRELOAD_BEFORE=pgaudit,auto_explain`).
pub fn preload() -> String {
    let others = |name: &str| std::env::var(name).unwrap_or_default();
    let all =
        [others("TEST_PRELOAD_BEFORE"), "meshhook_secrets".into(), others("TEST_PRELOAD_AFTER")];
    all.iter().filter(|list| !list.is_empty()).map(String::as_str).collect::<Vec<_>>().join(", ")
}
