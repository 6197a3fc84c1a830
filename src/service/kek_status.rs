//! What people see of the KEKs and of a rotation.

use super::{kek_life, rotation};
use crate::{
    error::Result,
    pg::{scan::Sees, server},
    store::{
        Timestamp, data_keys, jobs,
        keks::{self, StoredKek},
    },
};
use meshhook_secrets_core::kek_status::KekStatus;

/// A KEK, and on the active one the state of the last rotation.
pub struct KekInfo {
    pub stored: StoredKek,
    pub wraps: i64,
    pub next_rotation: Option<Timestamp>,
    pub progress: Option<Progress>,
}

/// How far a rotation is.
pub struct Progress {
    pub remaining: i64,
    pub done: i64,
    pub per_second: Option<f64>,
    pub estimated_end: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// All KEKs, newest first.
pub fn all() -> Result<Vec<KekInfo>> {
    let mut stored = keks::all(Sees::Statement)?;
    stored.sort_by_key(|kek| std::cmp::Reverse(kek.kek_id));
    stored
        .into_iter()
        .map(|stored| {
            let active = stored.status == KekStatus::Active.as_str();
            Ok(KekInfo {
                wraps: data_keys::count_of_kek(stored.kek_id)?,
                next_rotation: if active {
                    kek_life::next_rotation(Sees::Statement)?
                } else {
                    None
                },
                progress: if active { progress(stored.kek_id)? } else { None },
                stored,
            })
        })
        .collect()
}

fn progress(active: i32) -> Result<Option<Progress>> {
    let Some(job) = jobs::latest(Sees::Statement)? else {
        return Ok(None);
    };
    let remaining = rotation::remaining(active)?;
    let done = (job.total - remaining).max(0);
    let end = job.finished_at.unwrap_or_else(server::now);
    let seconds = (end - job.started_at).max(1) as f64 / 1e6;
    let per_second = (done > 0).then_some(done as f64 / seconds);
    let estimated_end = match (job.finished_at, per_second) {
        (None, Some(rate)) => Some(end + (remaining as f64 / rate * 1e6) as i64),
        (finished, _) => finished,
    };
    Ok(Some(Progress { remaining, done, per_second, estimated_end, last_error: job.last_error }))
}
