//! Counters and gauges, named as Prometheus wants them.

use super::{
    health::{self, has},
    kek_life, rotation,
};
use crate::{
    error::Result,
    pg::{scan::Sees, server},
    shmem::{audit, counters, keyring},
    store::{Timestamp, data_keys, jobs, keks},
};
use meshhook_secrets_core::kek_status::KekStatus;

/// What a value is.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Grows until the server is started anew.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    /// The name shown by `metrics()`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

/// One value.
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Name and value of its label, where it has one.
    pub label: Option<(&'static str, String)>,
    /// `None`: there is nothing to measure.
    pub value: Option<f64>,
    pub help: &'static str,
}

/// All values of this database.
pub fn all() -> Result<Vec<Metric>> {
    let mut metrics = traffic();
    metrics.extend(state()?);
    metrics.extend(audit());
    metrics.extend(key_life()?);
    Ok(metrics)
}

fn traffic() -> Vec<Metric> {
    let counted = counters::read();
    vec![
        counter("meshhook_secrets_puts_total", counted.puts, "Values stored."),
        counter("meshhook_secrets_gets_total", counted.gets, "Values revealed."),
        counter(
            "meshhook_secrets_denials_total",
            counted.denials,
            "Calls refused because the caller has no right.",
        ),
        counter("meshhook_secrets_failures_total", counted.failures, "Calls that failed."),
        Metric {
            label: counted.last_error.as_ref().map(|error| ("sqlstate", error.sqlstate.clone())),
            ..gauge(
                "meshhook_secrets_last_error_timestamp_seconds",
                counted.last_error.and_then(|error| epoch(error.at)),
                "When a call failed last, and its SQLSTATE.",
            )
        },
    ]
}

fn state() -> Result<Vec<Metric>> {
    let sealed = keyring::status()?.sealed;
    let sealed_projects = data_keys::sealed_projects()?;
    Ok(vec![
        gauge(
            "meshhook_secrets_health",
            Some(f64::from(health::health_with(|| Ok(sealed_projects))?.state as u8)),
            "0 ok, 1 degraded, 2 sealed; meshhook_secrets.health() says why.",
        ),
        gauge("meshhook_secrets_sealed", flag(sealed), "1 while the server has no root key."),
        gauge(
            "meshhook_secrets_sealed_projects",
            Some(sealed_projects as f64),
            "Projects that are sealed one by one.",
        ),
    ])
}

fn audit() -> Vec<Metric> {
    let queue = audit::status(server::database());
    let lag = queue.oldest.map_or(0.0, |oldest| seconds(server::now() - oldest).max(0.0));
    vec![
        gauge(
            "meshhook_secrets_audit_enabled",
            flag(health::audit_is_on()),
            "0 if the audit log is switched off.",
        ),
        gauge(
            "meshhook_secrets_audit_writer_running",
            flag(queue.writer_running),
            "1 while the audit writer of this database runs.",
        ),
        gauge(
            "meshhook_secrets_audit_queue_records",
            Some(queue.depth as f64),
            "Audit records that wait for the writer.",
        ),
        gauge(
            "meshhook_secrets_audit_lag_seconds",
            Some(lag),
            "Age of the oldest audit record that waits for the writer.",
        ),
        counter(
            "meshhook_secrets_audit_records_lost_total",
            u64::try_from(queue.lost).unwrap_or_default(),
            "Records of failures that went to the server log because the queue was full.",
        ),
    ]
}

fn key_life() -> Result<Vec<Metric>> {
    let stored = keks::all(Sees::Statement)?;
    let active = stored.iter().find(|kek| has(kek, KekStatus::Active));
    let latest = jobs::latest(Sees::Statement)?;
    let running = latest.as_ref().filter(|job| job.finished_at.is_none());
    let remaining = match active {
        Some(active) => rotation::remaining(active.kek_id)?,
        None => 0,
    };
    let mut metrics = vec![
        gauge(
            "meshhook_secrets_kek_age_seconds",
            active.map(|kek| seconds(server::now() - kek.created_at)),
            "Age of the active KEK.",
        ),
        gauge(
            "meshhook_secrets_rewraps_remaining",
            Some(remaining as f64),
            "Data keys that the active KEK does not wrap yet.",
        ),
        gauge(
            "meshhook_secrets_rotation_running",
            flag(running.is_some()),
            "1 while a rotation of the KEK is not finished.",
        ),
        gauge(
            "meshhook_secrets_rotation_error",
            flag(running.is_some_and(|job| job.last_error.is_some())),
            "1 while something keeps the running rotation from going on.",
        ),
        gauge(
            "meshhook_secrets_last_rotation_timestamp_seconds",
            latest.as_ref().and_then(|job| epoch(job.started_at)),
            "When the last rotation of the KEK was started.",
        ),
        gauge(
            "meshhook_secrets_next_rotation_timestamp_seconds",
            kek_life::next_rotation(Sees::Statement)?.and_then(epoch),
            "When the KEK is rotated next by schedule.",
        ),
    ];
    metrics.extend(KekStatus::ALL.into_iter().map(|status| Metric {
        label: Some(("status", String::from(status.as_str()))),
        ..gauge(
            "meshhook_secrets_keks",
            Some(stored.iter().filter(|kek| has(kek, status)).count() as f64),
            "KEKs by status.",
        )
    }));
    Ok(metrics)
}

fn counter(name: &'static str, value: u64, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, label: None, value: Some(value as f64), help }
}

fn gauge(name: &'static str, value: Option<f64>, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, label: None, value, help }
}

fn flag(is_so: bool) -> Option<f64> {
    Some(f64::from(u8::from(is_so)))
}

fn seconds(microseconds: i64) -> f64 {
    microseconds as f64 / 1e6
}

/// Seconds since 1970.
fn epoch(at: Timestamp) -> Option<f64> {
    const POSTGRES_EPOCH: f64 = 946_684_800.0;
    Some(seconds(at) + POSTGRES_EPOCH)
}
