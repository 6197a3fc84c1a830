//! How things are, in one row: what a probe asks again and again, so it reads little.

use super::kek_life;
use crate::{
    error::Result,
    pg::{scan::Sees, server},
    shmem::{audit, keyring},
    store::{
        Timestamp, audit as store, data_keys, jobs,
        keks::{self, StoredKek},
    },
};
use meshhook_secrets_core::kek_status::KekStatus;

/// In this order they get worse.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ok = 0,
    Degraded = 1,
    Sealed = 2,
}

impl State {
    /// The name shown by `health()`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Sealed => "sealed",
        }
    }
}

/// A state, why, and since when.
pub struct Health {
    pub state: State,
    pub cause: Option<String>,
    /// What to do; for `doctor()`, in its form.
    pub remedy: String,
    pub since: Option<Timestamp>,
}

/// What is the matter.
struct Cause {
    text: String,
    remedy: String,
    /// Since when, where that is recorded.
    since: Option<Timestamp>,
}

impl Cause {
    fn new(
        text: impl Into<String>,
        remedy: impl Into<String>,
        since: impl Into<Option<Timestamp>>,
    ) -> Self {
        Self { text: text.into(), remedy: remedy.into(), since: since.into() }
    }

    fn makes(self, state: State) -> Health {
        Health { state, cause: Some(self.text), remedy: self.remedy, since: self.since }
    }
}

/// A record that waits longer than this for the audit writer is late.
const AUDIT_LATE: i64 = 5_000_000;

/// A rotation that is due is started by the worker within seconds; after this it is overdue.
const ROTATION_LATE: i64 = 10 * 60 * 1_000_000;

/// The worst of what is the matter.
pub fn health() -> Result<Health> {
    health_with(data_keys::sealed_projects)
}

/// As [`health`], for a caller that may know already how many projects are sealed.
pub fn health_with(sealed_projects: impl FnOnce() -> Result<i64>) -> Result<Health> {
    let status = keyring::status()?;
    if status.sealed {
        let remedy = format!("-- {}\nSELECT meshhook_secrets.unseal();", status.remedy);
        return Ok(Cause::new(status.cause, remedy, status.since).makes(State::Sealed));
    }
    let stored = keks::all(Sees::Statement)?;
    let missing = without_root_key(&stored)?;
    if let Some(kek) = missing.iter().find(|kek| has(kek, KekStatus::Active)) {
        let text = format!("The active KEK needs root key {}.", kek.root_key_id);
        return Ok(Cause::new(text, PUT_BACK, status.since).makes(State::Sealed));
    }
    Ok(match degraded(&stored, &missing, status.since, sealed_projects)? {
        Some(cause) => cause.makes(State::Degraded),
        None => Health {
            state: State::Ok,
            cause: None,
            remedy: String::new(),
            since: Some(status.since),
        },
    })
}

const PUT_BACK: &str = "-- Put the root key with this fingerprint back into the root key source, as a further line.\nSELECT meshhook_secrets.unseal();";

/// The worst first; the dearest question last.
fn degraded(
    stored: &[StoredKek],
    missing: &[&StoredKek],
    opened: Timestamp,
    sealed_projects: impl FnOnce() -> Result<i64>,
) -> Result<Option<Cause>> {
    if let Some(cause) = no_active_kek(stored) {
        return Ok(Some(cause));
    }
    if let Some(kek) = missing.first() {
        let text = format!("KEK {} needs root key {}.", kek.kek_id, kek.root_key_id);
        return Ok(Some(Cause::new(text, PUT_BACK, opened)));
    }
    if let Some(cause) = audit_problem()? {
        return Ok(Some(cause));
    }
    if let Some(cause) = rotation_problem(stored)? {
        return Ok(Some(cause));
    }
    switched_off(stored, sealed_projects)
}

/// Before the first secret there is no KEK, and nothing amiss.
fn no_active_kek(stored: &[StoredKek]) -> Option<Cause> {
    let active = stored.iter().any(|kek| has(kek, KekStatus::Active));
    let since = stored.iter().filter_map(|kek| kek.rotated_at).max();
    (!stored.is_empty() && !active).then(|| {
        Cause::new("No KEK is active.", "SELECT * FROM meshhook_secrets.kek_rotate();", since)
    })
}

/// The KEKs whose root key is not loaded.
pub fn without_root_key(stored: &[StoredKek]) -> Result<Vec<&StoredKek>> {
    let loaded = keyring::root_ids()?;
    let needed = stored.iter().filter(|kek| kek.encrypted.is_some());
    Ok(needed.filter(|kek| !loaded.contains(&kek.root_key_id)).collect())
}

/// Whether audit records are written at all.
pub fn audit_is_on() -> bool {
    server::setting(c"meshhook_secrets.audit").is_none_or(|value| value != "off")
}

fn audit_problem() -> Result<Option<Cause>> {
    if !audit_is_on() {
        let remedy = "ALTER SYSTEM RESET meshhook_secrets.audit;\nSELECT pg_reload_conf();";
        return Ok(Some(Cause::new("The audit log is switched off.", remedy, None)));
    }
    let late = |oldest: &Timestamp| server::now() - oldest > AUDIT_LATE;
    if let Some(oldest) = audit::status(server::database()).oldest.filter(late) {
        let remedy =
            "-- Look at the server log, and whether max_worker_processes has room for the writer.";
        return Ok(Some(Cause::new("The audit writer is behind.", remedy, oldest)));
    }
    Ok(store::is_set_aside()?.then(|| {
        let remedy = "SELECT * FROM meshhook_secrets.root_key_verify();";
        Cause::new("Audit records cannot be sealed.", remedy, None)
    }))
}

fn rotation_problem(stored: &[StoredKek]) -> Result<Option<Cause>> {
    let latest = jobs::latest(Sees::Statement)?;
    if let Some(job) = latest.filter(|job| job.finished_at.is_none()) {
        let remedy = "-- Remove the cause; then the worker goes on by itself, or by hand:\nSELECT * FROM meshhook_secrets.kek_rewrap();";
        return Ok(job.last_error.map(|error| {
            Cause::new(format!("The rotation is stuck: {error}."), remedy, job.started_at)
        }));
    }
    let next = match stored.is_empty() {
        true => None,
        false => kek_life::next_rotation(Sees::Statement)?,
    };
    Ok(next.filter(|next| server::now() - next > ROTATION_LATE).map(|next| {
        let remedy = "SELECT * FROM meshhook_secrets.kek_rotate('overdue');";
        Cause::new("The scheduled rotation of the KEK is overdue.", remedy, next)
    }))
}

const UNSEAL: &str = "SELECT meshhook_secrets.unseal(d.project_id) FROM (SELECT DISTINCT project_id FROM meshhook_secrets.data_keys WHERE status = 'disabled') d;";

/// What somebody switched off and left so.
fn switched_off(
    stored: &[StoredKek],
    sealed_projects: impl FnOnce() -> Result<i64>,
) -> Result<Option<Cause>> {
    for kek in stored.iter().filter(|kek| has(kek, KekStatus::Disabled)) {
        let wraps = data_keys::count_of_kek(kek.kek_id)?;
        if wraps > 0 {
            let text = format!("KEK {} is disabled and wraps {wraps} data keys.", kek.kek_id);
            let remedy = format!("SELECT meshhook_secrets.kek_enable({});", kek.kek_id);
            return Ok(Some(Cause::new(text, remedy, None)));
        }
    }
    Ok(match sealed_projects()? {
        0 => None,
        1 => Some(Cause::new("One project is sealed.", UNSEAL, None)),
        count => Some(Cause::new(format!("{count} projects are sealed."), UNSEAL, None)),
    })
}

/// Whether a KEK has this status.
pub fn has(kek: &StoredKek, status: KekStatus) -> bool {
    kek.status == status.as_str()
}
