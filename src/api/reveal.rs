//! `secret_get` and its kin.

use super::arguments::{project, project_and_name, purpose};
use crate::{
    error::{Error, Result},
    hooks,
    pg::{
        call::{Answer, Call, datum},
        response,
        rows::Rows,
        server,
        value::revealed,
    },
    service::{
        audit::{Event, Kind, recorded},
        reveal,
    },
};
use pgrx::Array;

crate::sql_functions! {
    /// `secret_get(project_id, name, version, purpose)`
    meshhook_secrets_secret_get = get_text;
    /// `secret_get_bytes(project_id, name, version, purpose)`
    meshhook_secrets_secret_get_bytes = get_bytes;
    /// `secret_get_many(project_id, names, purpose)`
    meshhook_secrets_secret_get_many = get_many;
}

fn get_text(call: Call) -> Answer {
    recorded(Kind::Reveal, "secret_get", |event| {
        let value = get(&call, event)?;
        if !server::is_text(&value) {
            return Err(Error::new("22023", "value is binary")
                .detail("The value is not text in UTF-8.")
                .hint("Read it with meshhook_secrets.secret_get_bytes."));
        }
        Ok(Some(revealed(&value)))
    })
}

fn get_bytes(call: Call) -> Answer {
    recorded(Kind::Reveal, "secret_get_bytes", |event| Ok(Some(revealed(&get(&call, event)?))))
}

/// Before anything that could reveal a value: who must not keep it, and must not log it.
fn begin() {
    response::forbid_caching();
    hooks::value_function_runs();
}

fn get(call: &Call, event: &mut Event) -> Result<reveal::Value> {
    begin();
    let (project, name) = project_and_name(call, event)?;
    event.purpose(purpose(call, 3)?);
    reveal::one(&project, &name, call.optional(2), event)
}

fn get_many(call: Call) -> Answer {
    recorded(Kind::Reveal, "secret_get_many", |event| {
        begin();
        let project = project(&call)?;
        event.project(&project);
        event.purpose(purpose(&call, 2)?);
        let names = match call.raw(1) {
            None => None,
            Some(array) => Some((texts(&call, 1)?, array)),
        };
        let items = reveal::many(&project, names, event)?;
        let mut rows = Rows::begin(&call)?;
        for item in items {
            let (value, status) = match &item.outcome {
                Ok(value) => (Some(revealed(value)), "ok"),
                Err(status) => (None, *status),
            };
            rows.push(&[datum(item.name), value, item.version.and_then(datum), datum(status)])?;
        }
        rows.done()
    })
}

fn texts(call: &Call, index: usize) -> Result<Vec<String>> {
    let array: Array<'_, String> = call.required(index, "names")?;
    array.iter().map(|name| name.ok_or_else(|| Error::null_argument("names"))).collect()
}
