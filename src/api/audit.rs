//! `audit_search` and its kin.

use super::arguments::{optional_project, time, time_datum, uuid_datum};
use crate::{
    error::Error,
    pg::{
        call::{Answer, Call, datum},
        rows::Rows,
        server,
    },
    service::audit::{
        Kind, note, prune, recorded,
        search::{self, Query},
        verify,
    },
    store::audit::Filter,
};
use meshhook_secrets_core::audit::Record;
use pgrx::pg_sys::Datum;

crate::sql_functions! {
    /// `audit_search(project_id, since, until, action, outcome, actor, name, after, page_size)`
    meshhook_secrets_audit_search = search;
    /// `audit_verify(from_seal, to_seal)`
    meshhook_secrets_audit_verify = verify_seals;
    /// `audit_prune(before)`
    meshhook_secrets_audit_prune = prune_months;
    /// `audit_record_setup(action, detail)`
    meshhook_secrets_audit_record_setup = record_setup;
}

fn search(call: Call) -> Answer {
    recorded(Kind::Look, "audit_search", |event| {
        let page_size: i32 = call.required(8, "page_size")?;
        let mut query = Query {
            project: optional_project(&call),
            filter: Filter {
                projects: None,
                since: time(&call, 1),
                until: time(&call, 2),
                action: call.optional(3),
                outcome: call.optional(4),
                actor: call.optional(5),
                name: call.optional(6),
                after: call.optional(7),
                page_size: i64::from(page_size),
            },
        };
        search::prepare(&mut query, event)?;
        let mut rows = Rows::begin(&call)?;
        let _state = search::state(&query)?;
        for record in search::unsealed(&mut query)? {
            rows.push(&columns(record))?;
        }
        search::page(&query, |found| {
            (0..found.count()).try_for_each(|row| {
                let columns: Vec<Option<Datum>> =
                    (1..=found.width()).map(|column| found.raw(row, column)).collect();
                rows.push(&columns)
            })
        })?;
        rows.done()
    })
}

/// The columns of a record that has no id yet.
fn columns(record: Record) -> Vec<Option<Datum>> {
    vec![
        None,
        time_datum(record.time),
        datum(record.action),
        datum(record.outcome.as_str()),
        record.sqlstate.and_then(datum),
        record.project_id.as_ref().and_then(uuid_datum),
        record.secret_id.as_ref().and_then(uuid_datum),
        record.name.and_then(datum),
        record.version.and_then(datum),
        record.kek_id.and_then(datum),
        record.purpose.and_then(datum),
        record.detail.and_then(datum),
        datum(record.actor),
        record.actor_role.and_then(datum),
        record.claimed_sub.and_then(datum),
        record.claimed_role.and_then(datum),
        record.client_address.and_then(datum),
        record.application_name.and_then(datum),
        record.request_id.and_then(datum),
        record.transaction_id.and_then(datum),
        datum(record.times),
    ]
}

fn verify_seals(call: Call) -> Answer {
    recorded(Kind::Look, "audit_verify", |event| {
        let verified = verify::verify(call.optional(0), call.optional(1))?;
        if !verified.problems.is_empty() {
            event.failed();
        }
        event.detail(format!("{} problems", verified.problems.len()));
        let mut rows = Rows::begin(&call)?;
        rows.push(&[
            datum(verified.problems.is_empty()),
            datum(verified.seals),
            datum(verified.records),
            datum(verified.unsealed),
            verified.first_seal.and_then(datum),
            verified.last_seal.and_then(datum),
            verified.sealed_until.and_then(time_datum),
            datum(verified.problems),
        ])?;
        rows.done()
    })
}

fn prune_months(call: Call) -> Answer {
    recorded(Kind::Change, "audit_prune", |event| {
        let before = time(&call, 0).ok_or_else(|| Error::null_argument("before"))?;
        let dropped = prune::prune(before, event)?;
        let mut rows = Rows::begin(&call)?;
        for (partition, records) in dropped {
            rows.push(&[datum(partition), datum(records)])?;
        }
        rows.done()
    })
}

fn record_setup(call: Call) -> Answer {
    let action: String = call.required(0, "action")?;
    let detail: String = call.required(1, "detail")?;
    server::require_writable()?;
    note(&action, |event| event.detail(detail))?;
    Ok(None)
}
