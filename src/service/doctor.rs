//! What endangers the secrets and what to do about it: what SQL can find (`store/doctor`), the keys,
//! and what only a process of the server sees.

use super::{
    health::{self, State, has},
    release, sealing,
};
use crate::{
    error::Result,
    gucs,
    pg::{scan::Sees, server, user},
    root_key,
    shmem::{Protection, keyring},
    store::{
        data_keys,
        doctor::{self, Finding},
        jobs, keks,
    },
};
use meshhook_secrets_core::kek_status::KekStatus;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub(super) const CRITICAL: &str = "critical";
pub(super) const WARNING: &str = "warning";
const INFO: &str = "info";
const DAY: i64 = 86_400_000_000;

/// All findings, the worst first.
pub fn examine() -> Result<Vec<Finding>> {
    keyring::require_preloaded()?;
    let mut findings = state()?;
    findings.extend(release::findings()?);
    findings.extend(root_keys()?);
    findings.extend(life_of_keks()?);
    findings.extend(root_key_source());
    findings.extend(memory()?);
    findings.extend(doctor::findings()?.into_iter().map(discreet));
    findings.sort_by_key(|finding| match finding.severity.as_str() {
        CRITICAL => 0,
        WARNING => 1,
        _ => 2,
    });
    Ok(findings)
}

/// What a probe sees.
fn state() -> Result<Vec<Finding>> {
    let health = health::health()?;
    let (severity, finding) = match health.state {
        State::Ok => return Ok(Vec::new()),
        State::Degraded => (WARNING, "degraded"),
        State::Sealed => (CRITICAL, "sealed"),
    };
    Ok(vec![found(severity, finding, health.cause.unwrap_or_default(), health.remedy)])
}

fn root_keys() -> Result<Vec<Finding>> {
    let previous = sealing::root_keys()?.into_iter().filter(|key| key.is_loaded && !key.is_current);
    Ok(previous
        .map(|key| match key.keks {
            0 => found(
                INFO,
                "previous_root_key",
                format!("No KEK of this database needs the previous root key {}.", key.id),
                "-- If no other database of the server needs it either, keep its line with the backups made before, and take it out of the root key source.\nSELECT meshhook_secrets.unseal();",
            ),
            count => found(
                WARNING,
                "root_key_rotation",
                format!("{count} KEKs are still wrapped by the previous root key {}.", key.id),
                "SELECT * FROM meshhook_secrets.root_key_rotate();",
            ),
        })
        .collect())
}

fn life_of_keks() -> Result<Vec<Finding>> {
    let stored = keks::all(Sees::Statement)?;
    let period = jobs::auto_rotate_period(Sees::Statement)?;
    let now = server::now();
    let mut findings = Vec::new();
    for kek in &stored {
        let id = kek.kek_id;
        if has(kek, KekStatus::Active) && period.is_none() {
            let days = (now - kek.created_at) / DAY;
            if days > 400 {
                findings.push(found(
                    WARNING,
                    "kek_old",
                    format!("The active KEK is {days} days old."),
                    "SELECT * FROM meshhook_secrets.kek_rotate('age');",
                ));
            }
            findings.push(found(
                INFO,
                "no_schedule",
                "The KEK is not rotated by itself. If something else calls kek_rotate, all is well.",
                "SELECT meshhook_secrets.kek_configure('90 days');",
            ));
        }
        let retired = kek.retired_at.filter(|_| has(kek, KekStatus::Retired));
        if let Some(at) = retired.filter(|at| now - at > 90 * DAY) {
            findings.push(found(
                INFO,
                "kek_retired",
                format!("KEK {id} was retired {} days ago and still exists. Data restored from a backup of that time would need it.", (now - at) / DAY),
                format!("SELECT meshhook_secrets.kek_destroy({id}, confirm => '{id}');"),
            ));
        }
        if has(kek, KekStatus::Compromised) {
            let wraps = data_keys::count_of_kek(id)?;
            let (severity, detail, remedy) = match wraps {
                0 => (
                    WARNING,
                    format!(
                        "KEK {id} is compromised and no longer needed. Have dek_rotate and secret_reencrypt been called for each project since?"
                    ),
                    format!("SELECT meshhook_secrets.kek_destroy({id}, confirm => '{id}');"),
                ),
                _ => (
                    CRITICAL,
                    format!("KEK {id} is compromised and wraps {wraps} data keys."),
                    String::from("SELECT * FROM meshhook_secrets.kek_rotate('compromise');"),
                ),
            };
            findings.push(found(severity, "kek_compromised", detail, remedy));
        }
    }
    Ok(findings)
}

/// The file that the root key comes from, or what to know about the command.
fn root_key_source() -> Vec<Finding> {
    let Some(path) = gucs::root_key_file() else {
        let command = gucs::root_key_command().map(|_| {
            found(
                INFO,
                "root_key_command",
                "The root key comes from a command: where that has it from cannot be seen from here.",
                "-- Keep a copy of the root key apart from this host and from the backups.",
            )
        });
        return command.into_iter().collect();
    };
    let mut findings = vec![found(
        INFO,
        "root_key_copy",
        "Whether there is a copy of the root key elsewhere cannot be seen from here. Without it every backup is worthless.",
        "-- Keep a copy of the root key apart from this host and from the backups.",
    )];
    if let Err(failure) = root_key::file::examine(&path) {
        let command = format!("chmod 600 {}", quoted(&path));
        findings.push(found(CRITICAL, "root_key_file", failure.cause, in_shell(&command)));
    }
    let data = canonical(&server::data_directory());
    let file = canonical(&path);
    if file.starts_with(&data) {
        let new = data.parent().unwrap_or(&data).join("meshhook_secrets.key");
        let new = new.to_string_lossy();
        let command = format!(
            "mv {} {}\nALTER SYSTEM SET meshhook_secrets.root_key_file = {};\nSELECT pg_reload_conf();",
            quoted(&path),
            quoted(&new),
            literal(&new)
        );
        findings.push(found(
            CRITICAL,
            "root_key_in_data",
            "The root key file is in the data directory: every base backup carries it.",
            in_shell(&command),
        ));
    } else if device(&file).is_some() && device(&file) == device(&data) {
        findings.push(found(
            INFO,
            "root_key_filesystem",
            "The root key file is on the filesystem of the data directory: a snapshot or a stolen disk carries both.",
            "-- Put it on another filesystem, name it in meshhook_secrets.root_key_file, and reload the server.",
        ));
    }
    if let Some(directory) = file.parent()
        && fs::metadata(directory).is_ok_and(|it| it.mode() & 0o022 != 0 && it.mode() & 0o1000 == 0)
    {
        let command = format!("chmod go-w {}", quoted(&directory.to_string_lossy()));
        findings.push(found(
            WARNING,
            "root_key_directory",
            "Others than the owner can exchange the root key file: they can write to its directory.",
            in_shell(&command),
        ));
    }
    findings
}

/// How well memory is kept from disks.
fn memory() -> Result<Vec<Finding>> {
    let protection = keyring::status()?.protection;
    let mut findings = Vec::new();
    match protection {
        Protection::Secret => {}
        Protection::Locked => findings.push(found(
            INFO,
            "key_memory",
            "memfd_secret is not available; keys are kept from swap and core dumps by mlock, but the host's root can read them more easily.",
            "-- Use Linux 6.5 or later, or boot with secretmem.enable=1; then restart the server.",
        )),
        Protection::Undumped => findings.push(found(
            WARNING,
            "key_memory",
            "Key memory could not be locked: keys may be written to swap.",
            "-- Set LimitMEMLOCK=infinity in the server's systemd unit (ulimit -l unlimited), and restart the server.",
        )),
    }
    if protection != Protection::Secret && swap_is_used() {
        findings.push(found(
            if protection == Protection::Undumped { CRITICAL } else { INFO },
            "swap",
            "The host swaps: values that are being revealed may be written there, and keys unless their memory is locked.",
            "$ swapoff -a",
        ));
    }
    if core_limit() > 0 {
        findings.push(found(
            WARNING,
            "core_dumps",
            "Core dumps are on: that of a backend holds the values that it has just served, though no key.",
            format!(
                "-- Lasting: LimitCORE=0 in the server's systemd unit. At once, for new connections:\n$ prlimit --core=0:0 --pid {}",
                server::postmaster()
            ),
        ));
    }
    Ok(findings)
}

fn swap_is_used() -> bool {
    // The first line is a heading.
    fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().nth(1).is_some())
}

/// The size of a core dump of this process, 0 for none.
fn core_limit() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some("unlimited") => u64::MAX,
        Some(limit) => limit.parse().unwrap_or(0),
        None => 0,
    }
}

/// A command for the shell of the server's user that names the root key file: where that is, is nobody's business
/// but the superuser's.
fn in_shell(command: &str) -> String {
    if user::is_superuser() {
        format!("$ {command}")
    } else {
        String::from("-- Ask as a superuser for the command: it names the root key file.")
    }
}

/// Without what only superusers may see: the list of preloaded libraries.
fn discreet(finding: Finding) -> Finding {
    if finding.finding != "preload_order" || user::is_superuser() {
        return finding;
    }
    let remedy = "-- Ask as a superuser for the command: it names all preloaded libraries.";
    Finding { remedy: String::from(remedy), ..finding }
}

pub(super) fn found(
    severity: &str,
    finding: &str,
    detail: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding {
        severity: String::from(severity),
        finding: String::from(finding),
        detail: detail.into(),
        remedy: remedy.into(),
    }
}

fn canonical(path: &str) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path))
}

fn device(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|it| it.dev())
}

/// For the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// For SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
