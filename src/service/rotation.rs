//! Rotation of the KEK: another one becomes active at once, then the data keys are rewrapped in
//! batches, each a transaction of its own, by the background worker or by hand. The tables alone say
//! what is left to do, so that whoever comes after a crash goes on where it stopped.

use super::{access, audit, keys};
use crate::{
    error::{Error, Result},
    pg::{raise, scan, scan::Sees, server},
    shmem::{board, keyring},
    store::{
        Timestamp, Uuid, data_keys,
        data_keys::Wrapped,
        guard,
        jobs::{self, Job},
        keks::{self, StoredKek},
    },
};
use meshhook_secrets_core::{kek_status::KekStatus, key::Kek};
use serde_json::json;

/// A rotation and how many data keys are still to be rewrapped.
pub struct Rotation {
    pub job: Job,
    pub remaining: i64,
}

/// What a call of [`rewrap`] did.
#[derive(Default)]
pub struct Batch {
    pub rewrapped: i64,
    /// Data keys that do not authenticate, and stay as they are.
    pub failed: i64,
    /// The data keys that are left, once all have been looked at.
    pub remaining: Option<i64>,
}

/// How far the data keys have been looked at: what is behind it is not visited again by the next batch.
#[derive(Default)]
pub struct Position {
    kek_id: i32,
    /// Project and version; the nil UUID is before every other.
    after: (Uuid, i32),
}

/// Makes a KEK that waits for the next rotation.
pub fn generate() -> Result<i32> {
    access::require_writable()?;
    scan::lock_against_writers("kek_storage")?;
    let kek_id = next_kek_id()?;
    keys::make_kek(kek_id, KekStatus::Pending)?;
    Ok(kek_id)
}

/// Makes another KEK active. While a rotation runs, that one is the answer.
pub fn rotate(reason: Option<String>, started_by: String) -> Result<Rotation> {
    access::require_writable()?;
    // Two callers at the same moment queue here, and the second finds the first one's rotation.
    scan::lock_against_writers("kek_storage")?;
    let former = keys::active_kek()?;
    match (running()?, &former) {
        (Some(job), Some(active)) => {
            let remaining = remaining(active.kek_id)?;
            board::wake_at_commit(server::database())?;
            return Ok(Rotation { job, remaining });
        }
        // Its KEK was disabled or compromised meanwhile: this rotation takes over.
        (Some(job), None) => {
            let reason = "its KEK is no longer active; a further rotation took over";
            jobs::update(job.job_id, Some(server::now()), Some(reason))?;
        }
        (None, _) => {}
    }
    if let Some(former) = &former {
        set_status(former, KekStatus::Retiring, None)?;
    }
    let kek_id = match waiting()? {
        Some(pending) => {
            set_status(&pending, KekStatus::Active, None)?;
            pending.kek_id
        }
        None => {
            let kek_id = next_kek_id()?;
            keys::make_kek(kek_id, KekStatus::Active)?;
            kek_id
        }
    };
    let total = remaining(kek_id)?;
    let job = Job {
        job_id: jobs::latest(Sees::Latest)?.map_or(1, |job| job.job_id + 1),
        kek_id,
        reason,
        total,
        started_at: server::now(),
        started_by,
        finished_at: None,
        last_error: None,
    };
    jobs::insert(&job)?;
    jobs::notify(&json!({
        "event": "rotation_started", "job_id": job.job_id, "kek_id": kek_id, "total": total
    }))?;
    board::wake_at_commit(server::database())?;
    warn_of_compromise()?;
    Ok(Rotation { job, remaining: total })
}

/// Rewraps up to `limit` data keys with the active KEK, from `position` on. When all have been looked
/// at, retires the KEKs that nothing needs any more, and finishes the rotation if nothing is left.
pub fn rewrap(limit: i64, position: &mut Position) -> Result<Batch> {
    access::require_writable()?;
    keyring::require_open()?;
    let mut batch = Batch::default();
    let mut broken = None;
    if keks::all(Sees::Latest)?.is_empty() {
        batch.remaining = Some(0);
        return Ok(batch);
    }
    let active = keys::active_kek()?.ok_or_else(keys::no_active_kek)?;
    let current = keys::kek_to_wrap()?;
    let former = replaced(active.kek_id)?;
    let start = position.kek_id;
    for kek in former.iter().filter(|kek| kek.kek_id >= start) {
        if kek.kek_id > position.kek_id {
            *position = Position { kek_id: kek.kek_id, after: ([0; 16], -1) };
        }
        loop {
            let wanted = limit - batch.rewrapped;
            if wanted <= 0 {
                return Ok(batch);
            }
            let (project, version) = &position.after;
            let taken = data_keys::take_of_kek(kek.kek_id, (project, *version), wanted)?;
            if let Some(last) = taken.last() {
                position.after = (last.project_id, last.key.dek_version);
            }
            let (rewrapped, failed) = match rewrap_taken(&taken, &current) {
                // The KEK itself: it fails alone, as a data key does.
                Err(error) if cannot_unwrap(&error) => {
                    broken = Some(kek.kek_id);
                    (0, taken.len() as i64)
                }
                other => other?,
            };
            batch.rewrapped += rewrapped;
            batch.failed += failed;
            if (taken.len() as i64) < wanted {
                break;
            }
        }
    }
    *position = Position::default();
    let mut remaining = 0;
    for kek in &former {
        match data_keys::count_of_kek(kek.kek_id)? {
            0 if kek.status == KekStatus::Retiring.as_str() => match retire(kek.kek_id) {
                Err(error) if cannot_unwrap(&error) => broken = Some(kek.kek_id),
                other => other?,
            },
            count => remaining += count,
        }
    }
    batch.remaining = Some(remaining);
    if let Some(job) = running()? {
        conclude(&job, remaining, batch.rewrapped, broken)?;
    }
    Ok(batch)
}

/// Somebody changed the tables directly, for example by restoring a dump that was taken in the middle of
/// a rotation: the worker looks what there is to do.
pub fn look_again() -> Result<()> {
    if guard::is_ours() || !keyring::is_preloaded() {
        return Ok(());
    }
    board::wake_at_commit(server::database())
}

/// The rotation that is running.
pub fn running() -> Result<Option<Job>> {
    Ok(jobs::latest(Sees::Latest)?.filter(|job| job.finished_at.is_none()))
}

/// How many data keys other KEKs than the active one wrap that can be rewrapped.
pub fn remaining(active: i32) -> Result<i64> {
    replaced(active)?.iter().map(|kek| data_keys::count_of_kek(kek.kek_id)).sum()
}

/// As [`remaining`], whichever KEK is active.
pub fn remaining_now() -> Result<i64> {
    match keys::active_kek()? {
        Some(active) => remaining(active.kek_id),
        None => Ok(0),
    }
}

/// Whether there is something to rewrap or to retire.
pub fn is_due() -> Result<bool> {
    if running()?.is_some() {
        return Ok(true);
    }
    let retiring = keks::all(Sees::Latest)?;
    Ok(retiring.iter().any(|kek| kek.status == KekStatus::Retiring.as_str()))
}

/// Writes a KEK with another status, which means wrapping it anew.
pub fn set_status(
    stored: &StoredKek,
    status: KekStatus,
    destroy_after: Option<Timestamp>,
) -> Result<()> {
    let (_, kek) = keys::unwrap_kek(stored)?;
    let (root_key_id, encrypted) = keys::wrap_kek(stored.kek_id, status, &kek)?;
    keys::forget(stored)?;
    keks::update(stored.kek_id, Some(&encrypted), &root_key_id, status.as_str(), destroy_after)
}

/// Retires a KEK if it is provably unused: nobody is wrapping with it, and nothing is wrapped by it.
fn retire(kek_id: i32) -> Result<()> {
    // The table first, then the row: the order of every other step.
    scan::lock_against_writers("kek_storage")?;
    if !keks::seize(kek_id)? {
        return Ok(());
    }
    let Some(stored) = keks::find(kek_id, Sees::Latest)? else {
        return Err(Error::corrupted());
    };
    if stored.status == KekStatus::Retiring.as_str() && data_keys::count_of_kek(kek_id)? == 0 {
        set_status(&stored, KekStatus::Retired, None)?;
        audit::note("kek_retire", |event| event.kek(kek_id))?;
    }
    Ok(())
}

/// Whether a KEK was tampered with, or its root key is not loaded.
fn cannot_unwrap(error: &Error) -> bool {
    matches!(error.state(), Some("XX001" | "PT503"))
}

fn rewrap_taken(taken: &[Wrapped], (kek_id, kek): &(i32, Kek)) -> Result<(i64, i64)> {
    let Some(first) = taken.first() else {
        return Ok((0, 0));
    };
    let former = keys::kek_to_unwrap(first.key.kek_id)?;
    let mut rewrapped = 0;
    for Wrapped { project_id, key } in taken {
        let Ok(mut identity) = keys::identity(project_id, key) else {
            continue;
        };
        let Ok(dek) = former.unwrap(&key.encrypted, &identity) else {
            continue;
        };
        identity.kek_id = *kek_id;
        data_keys::rewrap(project_id, key.dek_version, *kek_id, &kek.wrap(&dek, &identity)?)?;
        rewrapped += 1;
    }
    Ok((rewrapped, taken.len() as i64 - rewrapped))
}

fn conclude(job: &Job, remaining: i64, rewrapped: i64, broken: Option<i32>) -> Result<()> {
    let retiring = keks::all(Sees::Latest)?;
    let retiring = retiring.iter().find(|kek| kek.status == KekStatus::Retiring.as_str());
    let problem = match (remaining, retiring) {
        _ if broken.is_some() => {
            format!(
                "KEK {} does not authenticate, or its root key is not loaded",
                broken.unwrap_or_default()
            )
        }
        (0, None) => {
            jobs::update(job.job_id, Some(server::now()), None)?;
            audit::note("rotation_finish", |event| event.kek(job.kek_id))?;
            return jobs::notify(&json!({
                "event": "rotation_finished", "job_id": job.job_id, "kek_id": job.kek_id
            }));
        }
        (0, Some(kek)) => format!("KEK {} is held by an open transaction", kek.kek_id),
        (count, _) => {
            format!("{count} data keys do not authenticate, or are held by open transactions")
        }
    };
    // The first look at what open transactions hold is no failure yet, and one cause is told once.
    let told = job.last_error.as_deref() == Some(problem.as_str());
    let progress = rewrapped > 0 && broken.is_none();
    if progress || told { Ok(()) } else { report_failure(job, Some(&problem)) }
}

/// Writes what keeps a rotation from going on.
pub fn report_failure(job: &Job, problem: Option<&str>) -> Result<()> {
    jobs::update(job.job_id, None, problem)?;
    if let Some(problem) = problem {
        audit::note("rotation_fail", |event| {
            event.kek(job.kek_id);
            event.detail(problem);
            event.failed();
        })?;
    }
    match problem {
        Some(problem) => jobs::notify(&json!({
            "event": "rotation_failed", "job_id": job.job_id, "kek_id": job.kek_id, "error": problem
        })),
        None => Ok(()),
    }
}

/// A rotation alone does not undo a compromise.
fn warn_of_compromise() -> Result<()> {
    for kek in keks::all(Sees::Latest)? {
        if kek.status == KekStatus::Compromised.as_str() {
            raise::log(
                pgrx::PgLogLevel::NOTICE,
                &format!(
                    "KEK {} is compromised: whoever had it and a copy of the tables has the data keys that it wrapped",
                    kek.kek_id
                ),
                Some(
                    "Call meshhook_secrets.dek_rotate and meshhook_secrets.secret_reencrypt for each project, then meshhook_secrets.kek_destroy; replace the secrets themselves at their services.",
                ),
            );
        }
    }
    Ok(())
}

/// The KEKs besides the active one whose data keys can be rewrapped.
fn replaced(active: i32) -> Result<Vec<StoredKek>> {
    let mut keks = keks::all(Sees::Latest)?;
    keks.sort_by_key(|kek| kek.kek_id);
    keks.retain(|kek| {
        kek.kek_id != active
            && kek.status.parse().is_ok_and(|status: KekStatus| status.may_unwrap())
    });
    Ok(keks)
}

/// The oldest pending KEK.
fn waiting() -> Result<Option<StoredKek>> {
    let mut keks = keks::all(Sees::Latest)?;
    keks.retain(|kek| kek.status == KekStatus::Pending.as_str());
    Ok(keks.into_iter().min_by_key(|kek| kek.kek_id))
}

fn next_kek_id() -> Result<i32> {
    let newest = keks::all(Sees::Latest)?.iter().map(|kek| kek.kek_id).max().unwrap_or(0);
    newest.checked_add(1).ok_or_else(|| Error::no_number_left("Start anew with another database."))
}
