//! `secret_put` and its kin.

use super::arguments::{from_now, project_and_name, time, time_datum, uuid_datum};
use crate::{
    error::{Error, Result},
    hooks,
    pg::call::{Answer, Call, datum},
    service::{
        audit::{Event, Kind, recorded},
        write::{self, Options, Written},
    },
};
use meshhook_secrets_core::{
    generate::{self, Charset},
    limits::{DESCRIPTION_MAX, METADATA_MAX},
};

crate::sql_functions! {
    /// `secret_put(project_id, name, value, cas, description, expires_at, metadata, previous_valid_for)`
    meshhook_secrets_secret_put = put_text;
    /// `secret_put_bytes(project_id, name, value, …)`
    meshhook_secrets_secret_put_bytes = put_bytes;
    /// `secret_generate(project_id, name, length, charset, …)`
    meshhook_secrets_secret_generate = generate_value;
    /// `secret_rollback(project_id, name, version, cas)`
    meshhook_secrets_secret_rollback = rollback;
}

fn put_text(call: Call) -> Answer {
    recorded(Kind::Change, "secret_put", |event| {
        hooks::value_function_runs();
        let (project, name) = project_and_name(&call, event)?;
        let value: &str = call.required(2, "value")?;
        let written = write::put(&project, &name, value.as_bytes(), &options(&call, 3)?)?;
        answer(&call, &name, written, event)
    })
}

fn put_bytes(call: Call) -> Answer {
    recorded(Kind::Change, "secret_put_bytes", |event| {
        hooks::value_function_runs();
        let (project, name) = project_and_name(&call, event)?;
        let value: &[u8] = call.required(2, "value")?;
        let written = write::put(&project, &name, value, &options(&call, 3)?)?;
        answer(&call, &name, written, event)
    })
}

fn generate_value(call: Call) -> Answer {
    recorded(Kind::Change, "secret_generate", |event| {
        let (project, name) = project_and_name(&call, event)?;
        let charset: Charset = call.required::<&str>(3, "charset")?.parse()?;
        let value = generate::generate(call.required(2, "length")?, charset)?;
        let written = write::put(&project, &name, &value, &options(&call, 4)?)?;
        answer(&call, &name, written, event)
    })
}

fn rollback(call: Call) -> Answer {
    recorded(Kind::Change, "secret_rollback", |event| {
        let (project, name) = project_and_name(&call, event)?;
        let version: i32 = call.required(2, "version")?;
        event.detail(format!("to version {version}"));
        let written = write::rollback(&project, &name, version, cas(&call, 3)?)?;
        answer(&call, &name, written, event)
    })
}

/// The arguments from `cas` on, which start at `first`.
fn options(call: &Call, first: usize) -> Result<Options> {
    if call.size(first + 1) > DESCRIPTION_MAX {
        return Err(Error::too_long("description", DESCRIPTION_MAX));
    }
    if call.size(first + 3) > METADATA_MAX {
        return Err(Error::too_long("metadata", METADATA_MAX));
    }
    Ok(Options {
        cas: cas(call, first)?,
        description: call.raw(first + 1),
        expires_at: time(call, first + 2),
        metadata: call.raw(first + 3),
        previous_expires_at: from_now(call, first + 4, "previous_valid_for")?,
    })
}

fn cas(call: &Call, index: usize) -> Result<Option<i32>> {
    match call.optional::<i32>(index) {
        Some(cas) if cas < 0 => Err(Error::invalid("cas is negative.")
            .hint("Give the version that the secret must have, or 0 for none.")),
        cas => Ok(cas),
    }
}

fn answer(call: &Call, name: &str, written: Written, event: &mut Event) -> Answer {
    event.secret(&written.id, written.version);
    call.record(&[
        uuid_datum(&written.id),
        datum(name),
        datum(written.version),
        time_datum(written.created_at),
        written.expires_at.and_then(time_datum),
    ])
}
