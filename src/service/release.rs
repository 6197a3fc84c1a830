//! Three versions that should be one: of the library that runs, of the SQL in this database, and of
//! the package on this host. During an upgrade they differ for a while.

use super::doctor::{CRITICAL, WARNING, found};
use crate::{
    error::Result,
    pg::server,
    store::{doctor::Finding, extension},
};
use std::{cmp::Ordering, fs, path::Path};

/// The version of this library.
pub const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// What `doctor()` says where they differ.
pub fn findings() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let package = package();
    if let Some(package) = package.as_deref().filter(|it| compare(it, LIBRARY).is_gt()) {
        findings.push(found(
            WARNING,
            "restart_needed",
            format!("Version {package} is installed, but the server still runs {LIBRARY}."),
            "-- Restart the server; then ALTER EXTENSION meshhook_secrets UPDATE in each database.",
        ));
    }
    let sql = extension::version()?;
    match compare(&sql, LIBRARY) {
        Ordering::Equal => {}
        Ordering::Less => findings.push(found(
            WARNING,
            "update_needed",
            format!("This database has the functions of version {sql}; the library is {LIBRARY}."),
            match server::in_recovery() {
                true => "-- On the primary: ALTER EXTENSION meshhook_secrets UPDATE;",
                false => {
                    "ALTER EXTENSION meshhook_secrets UPDATE;\n-- On Supabase, then call setup_supabase again as before: it grants what is new."
                }
            },
        )),
        Ordering::Greater => findings.push(found(
            CRITICAL,
            "library_too_old",
            format!("This database has the functions of version {sql}; the library is {LIBRARY}, which lacks some."),
            match package {
                Some(package) if compare(&package, &sql).is_ge() => {
                    String::from("-- Restart the server: the library that it needs is installed.")
                }
                _ => format!("-- Install version {sql} or later on this host, and restart the server."),
            },
        )),
    }
    Ok(findings)
}

/// The version that `CREATE EXTENSION` would take; `None` where the control file cannot be read.
fn package() -> Option<String> {
    let file = Path::new(&server::share_directory()).join("extension/meshhook_secrets.control");
    let control = fs::read_to_string(file).ok()?;
    let line = control.lines().find_map(|line| line.strip_prefix("default_version"))?;
    Some(line.split('\'').nth(1)?.to_owned())
}

/// By their numbers; what is no number counts as 0.
fn compare(one: &str, other: &str) -> Ordering {
    let numbers = |version: &str| -> Vec<u32> {
        version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    numbers(one).cmp(&numbers(other))
}
