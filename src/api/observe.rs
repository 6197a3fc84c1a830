//! `library_version`, `health`, `metrics` and `doctor`.

use super::arguments::time_datum;
use crate::{
    pg::{
        call::{Answer, Call, datum},
        rows::Rows,
    },
    service::{doctor, health, metrics, release},
};
use pgrx::JsonB;
use serde_json::json;

crate::sql_functions! {
    /// `library_version()`
    meshhook_secrets_library_version = library_version;
    /// `health()`
    meshhook_secrets_health = health;
    /// `metrics()`
    meshhook_secrets_metrics = metrics;
    /// `doctor()`
    meshhook_secrets_doctor = doctor;
}

fn library_version(_: Call) -> Answer {
    Ok(datum(release::LIBRARY))
}

fn health(call: Call) -> Answer {
    let health = health::health()?;
    let mut rows = Rows::begin(&call)?;
    rows.push(&[
        datum(health.state.as_str()),
        datum(health.cause),
        health.since.and_then(time_datum),
    ])?;
    rows.done()
}

fn metrics(call: Call) -> Answer {
    let metrics = metrics::all()?;
    let mut rows = Rows::begin(&call)?;
    for metric in metrics {
        let labels = metric.label.map_or_else(|| json!({}), |(name, value)| json!({ name: value }));
        rows.push(&[
            datum(metric.name),
            datum(metric.kind.as_str()),
            datum(JsonB(labels)),
            datum(metric.value),
            datum(metric.help),
        ])?;
    }
    rows.done()
}

fn doctor(call: Call) -> Answer {
    let findings = doctor::examine()?;
    let mut rows = Rows::begin(&call)?;
    for finding in findings {
        rows.push(&[
            datum(finding.severity),
            datum(finding.finding),
            datum(finding.detail),
            datum(finding.remedy),
        ])?;
    }
    rows.done()
}
