//! Single steps in the life of a KEK, each checked against the state machine of the core.

use super::{access, audit, keys, rotation};
use crate::{
    error::{Error, Result},
    pg::{scan, scan::Sees, server},
    shmem::board,
    store::{
        Timestamp, data_keys,
        jobs::{self, Job},
        keks::{self, StoredKek},
    },
};
use meshhook_secrets_core::kek_status::KekStatus;
use serde_json::json;

/// Switches a KEK off.
pub fn disable(kek_id: i32) -> Result<KekStatus> {
    let stored = locked(kek_id)?;
    if stored.status == KekStatus::DestroyScheduled.as_str() {
        let hint = "It does not work already; meshhook_secrets.kek_cancel_destroy keeps it.";
        return Err(illegal(&stored, "disabled", hint));
    }
    step(kek_id, KekStatus::Disabled)
}

/// Switches a disabled KEK on again, for reading.
pub fn enable(kek_id: i32) -> Result<KekStatus> {
    let stored = locked(kek_id)?;
    if stored.status != KekStatus::Disabled.as_str() {
        return Err(illegal(&stored, "enabled", "Only a disabled KEK can be enabled."));
    }
    let next = match data_keys::count_of_kek(kek_id)? {
        0 => KekStatus::Retired,
        _ => KekStatus::Retiring,
    };
    rotation::set_status(&stored, next, None)?;
    board::wake_at_commit(server::database())?;
    Ok(next)
}

/// Marks a KEK as known to somebody else.
pub fn mark_compromised(kek_id: i32) -> Result<KekStatus> {
    step(kek_id, KekStatus::Compromised)
}

/// Schedules the destruction of a KEK that nothing needs.
pub fn destroy(kek_id: i32, confirm: &str, at: Timestamp) -> Result<Timestamp> {
    if confirm != kek_id.to_string() {
        return Err(Error::invalid("confirm is not the id of the KEK.").hint(
            "A destruction is final after its wait: give the id once more as confirm, as text.",
        ));
    }
    access::require_writable()?;
    let stored = locked(kek_id)?;
    if !keks::seize(kek_id)? {
        return Err(in_use(&stored, "is held by an open transaction"));
    }
    let wraps = data_keys::count_of_kek(kek_id)?;
    if wraps > 0 {
        return Err(in_use(&stored, &format!("wraps {wraps} data keys")));
    }
    check(&stored, KekStatus::DestroyScheduled, "destroyed")?;
    rotation::set_status(&stored, KekStatus::DestroyScheduled, Some(at))?;
    jobs::notify(&json!({ "event": "kek_destroy_scheduled", "kek_id": kek_id }))?;
    board::wake_at_commit(server::database())?;
    Ok(at)
}

/// Cancels a scheduled destruction.
pub fn cancel_destroy(kek_id: i32) -> Result<KekStatus> {
    let stored = locked(kek_id)?;
    if stored.status != KekStatus::DestroyScheduled.as_str() {
        return Err(illegal(&stored, "kept", "No destruction of it is scheduled."));
    }
    rotation::set_status(&stored, KekStatus::Disabled, None)?;
    Ok(KekStatus::Disabled)
}

/// Destroys the KEKs whose wait is over; how many.
pub fn destroy_due() -> Result<usize> {
    let is_due = |stored: &StoredKek| {
        stored.status == KekStatus::DestroyScheduled.as_str()
            && stored.destroy_after.is_some_and(|at| at <= server::now())
    };
    if !keks::all(Sees::Latest)?.iter().any(is_due) {
        return Ok(0);
    }
    // Looked at again under the lock: it may have been cancelled.
    scan::lock_against_writers("kek_storage")?;
    let mut destroyed = 0;
    for stored in keks::all(Sees::Latest)?.into_iter().filter(is_due) {
        if !keks::seize(stored.kek_id)? {
            continue;
        }
        if data_keys::count_of_kek(stored.kek_id)? > 0 {
            // Restored from a backup in the meantime: it is needed after all.
            rotation::set_status(&stored, KekStatus::Disabled, None)?;
            continue;
        }
        let root_key_id = &stored.root_key_id;
        let status = KekStatus::Destroyed.as_str();
        keks::update(stored.kek_id, None, root_key_id, status, stored.destroy_after)?;
        keys::forget(&stored)?;
        audit::note("kek_destroyed", |event| event.kek(stored.kek_id))?;
        jobs::notify(&json!({ "event": "kek_destroyed", "kek_id": stored.kek_id }))?;
        destroyed += 1;
    }
    Ok(destroyed)
}

/// Sets how old the active KEK gets.
pub fn configure(auto_rotate_period: Option<i64>) -> Result<()> {
    const HOUR: i64 = 3_600_000_000;
    if auto_rotate_period.is_some_and(|period| period < HOUR) {
        return Err(Error::invalid("auto_rotate_period is shorter than an hour.")
            .hint("90 days is usual: meshhook_secrets.kek_configure('90 days')."));
    }
    access::require_writable()?;
    jobs::set_auto_rotate_period(auto_rotate_period)?;
    board::wake_at_commit(server::database())
}

/// When the active KEK is to be rotated by itself.
pub fn next_rotation(sees: Sees) -> Result<Option<Timestamp>> {
    let Some(period) = jobs::auto_rotate_period(sees)? else {
        return Ok(None);
    };
    let active = keks::all(sees)?.into_iter().find(|kek| kek.status == KekStatus::Active.as_str());
    let Some(active) = active else {
        return Ok(None);
    };
    // A KEK that was generated ahead is as old as its activity.
    let since = match jobs::latest(sees)? {
        Some(Job { kek_id, started_at, .. }) if kek_id == active.kek_id => started_at,
        _ => active.created_at,
    };
    Ok(Some(since.saturating_add(period)))
}

/// When there is something to do by itself next.
pub fn next_due() -> Result<Option<Timestamp>> {
    let destroy = keks::all(Sees::Latest)?
        .into_iter()
        .filter(|kek| kek.status == KekStatus::DestroyScheduled.as_str())
        .filter_map(|kek| kek.destroy_after)
        .min();
    Ok([next_rotation(Sees::Latest)?, destroy].into_iter().flatten().min())
}

fn step(kek_id: i32, next: KekStatus) -> Result<KekStatus> {
    let stored = locked(kek_id)?;
    check(&stored, next, next.as_str())?;
    rotation::set_status(&stored, next, None)?;
    jobs::notify(&json!({ "event": format!("kek_{}", next.as_str()), "kek_id": kek_id }))?;
    Ok(next)
}

/// The KEK with this id, which nobody else changes until the transaction ends.
fn locked(kek_id: i32) -> Result<StoredKek> {
    access::require_writable()?;
    scan::lock_against_writers("kek_storage")?;
    keks::find(kek_id, Sees::Latest)?.ok_or_else(no_such_kek)
}

/// PT404: no KEK has this id.
pub fn no_such_kek() -> Error {
    Error::new("PT404", "KEK not found")
        .detail("There is no KEK with this id.")
        .hint("meshhook_secrets.kek_status() lists the KEKs.")
}

fn check(stored: &StoredKek, next: KekStatus, what: &str) -> Result<()> {
    let status: KekStatus = stored.status.parse()?;
    if status.may_become(next) {
        return Ok(());
    }
    Err(illegal(
        stored,
        what,
        match status {
            KekStatus::Active | KekStatus::Retiring => {
                "Rotate first: meshhook_secrets.kek_rotate(), and wait until it is retired."
            }
            KekStatus::Destroyed => "A destroyed KEK is gone for good.",
            _ => "meshhook_secrets.kek_status() shows the KEKs and their status.",
        },
    ))
}

fn in_use(stored: &StoredKek, how: &str) -> Error {
    Error::conflict("KEK is still in use")
        .detail(format!("KEK {} is {} and {how}.", stored.kek_id, stored.status))
        .hint("Rotate first: meshhook_secrets.kek_rotate(), then wait until meshhook_secrets.kek_status() shows 0 wraps.")
}

fn illegal(stored: &StoredKek, what: &str, hint: &'static str) -> Error {
    Error::conflict("status of the KEK does not allow this")
        .detail(format!("KEK {} is {} and cannot be {what}.", stored.kek_id, stored.status))
        .hint(hint)
}
