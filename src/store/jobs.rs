//! `rotation_jobs`, and the schedule in `settings`.

use super::{Timestamp, guard::change};
use crate::{
    error::Result,
    pg::{
        scan::{self, Key, Row, Sees},
        spi::{May, Statement, parameter},
        user::Acting,
    },
};
use pgrx::{
    JsonB,
    datum::TimestampWithTimeZone,
    pg_sys::{Datum, INT4OID, INT8OID, JSONBOID, TEXTOID, TIMESTAMPTZOID},
};
use serde_json::{Value, json};
use std::ops::ControlFlow;

/// A row of `rotation_jobs`.
pub struct Job {
    pub job_id: i32,
    pub kek_id: i32,
    pub reason: Option<String>,
    pub total: i64,
    pub started_at: Timestamp,
    pub started_by: String,
    pub finished_at: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// The latest rotation; it is the running one if it is not finished.
pub fn latest(sees: Sees) -> Result<Option<Job>> {
    let mut latest: Option<Job> = None;
    scan::rows("rotation_jobs", None, sees, &[], |row| {
        let job = stored(row)?;
        if latest.as_ref().is_none_or(|known| known.job_id < job.job_id) {
            latest = Some(job);
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(latest)
}

/// Opens a rotation.
pub fn insert(job: &Job) -> Result<()> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.rotation_jobs (job_id, kek_id, reason, total, started_at, started_by, finished_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[INT4OID, INT4OID, TEXTOID, INT8OID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [
        parameter(job.job_id),
        parameter(job.kek_id),
        job.reason.as_deref().and_then(parameter),
        parameter(job.total),
        Some(Datum::from(job.started_at)),
        parameter(job.started_by.as_str()),
        job.finished_at.map(Datum::from),
    ];
    change(|| INSERT.change_one(&parameters))
}

/// Writes how a rotation goes.
pub fn update(job_id: i32, finished_at: Option<Timestamp>, last_error: Option<&str>) -> Result<()> {
    static UPDATE: Statement = Statement::new(
        c"UPDATE meshhook_secrets.rotation_jobs SET finished_at = $2, last_error = $3 WHERE job_id OPERATOR(pg_catalog.=) $1",
        &[INT4OID, TIMESTAMPTZOID, TEXTOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters =
        [parameter(job_id), finished_at.map(Datum::from), last_error.and_then(parameter)];
    change(|| UPDATE.change_one(&parameters))
}

/// How old the active KEK gets before it is rotated by itself, in microseconds; `None`: never.
pub fn auto_rotate_period(sees: Sees) -> Result<Option<i64>> {
    let key = [Key::text(1, "kek")];
    let stored = scan::rows("settings", Some("settings_pkey"), sees, &key, |row| {
        let JsonB(value) = row.required(2)?;
        Ok(ControlFlow::Break(value))
    })?;
    Ok(stored.as_ref().and_then(|value: &Value| value["auto_rotate_microseconds"].as_i64()))
}

/// Writes the schedule.
pub fn set_auto_rotate_period(microseconds: Option<i64>) -> Result<()> {
    static UPSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.settings (key, value) VALUES ('kek', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        &[JSONBOID],
    );
    let _owner = Acting::as_owner()?;
    let value = JsonB(json!({ "auto_rotate_microseconds": microseconds }));
    change(|| UPSERT.change_one(&[parameter(value)]))
}

/// Tells whoever listens to the channel `meshhook_secrets`, at commit. Not while the queue is half full: it is
/// the server's, anybody can fill it, and a full one would make the transaction fail.
pub fn notify(event: &Value) -> Result<()> {
    static NOTIFY: Statement =
        Statement::new(c"SELECT pg_catalog.pg_notify('meshhook_secrets', $1) WHERE pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) 0.5", &[TEXTOID]);
    NOTIFY.run(May::Write, &[parameter(event.to_string())], |_| Ok(()))
}

fn stored(row: &Row) -> Result<Job> {
    let time = |column| row.optional::<TimestampWithTimeZone>(column).map(i64::from);
    Ok(Job {
        job_id: row.required(1)?,
        kek_id: row.required(2)?,
        reason: row.optional(3),
        total: row.required(4)?,
        started_at: time(5).unwrap_or_default(),
        started_by: row.required(6)?,
        finished_at: time(7),
        last_error: row.optional(8),
    })
}
