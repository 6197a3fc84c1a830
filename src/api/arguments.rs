//! Arguments that several functions have.

use crate::{
    error::{Error, Result},
    pg::call::{Call, datum},
    service::audit::Event,
    store::{Timestamp, Uuid},
};
use pgrx::{
    datum::{Interval, TimestampWithTimeZone},
    direct_function_call,
    pg_sys::{self, Datum},
};

/// `project_id uuid` as the first argument.
pub fn project(call: &Call) -> Result<Uuid> {
    Ok(*call.required::<pgrx::Uuid>(0, "project_id")?.as_bytes())
}

/// `project_id uuid = NULL` as the first argument.
pub fn optional_project(call: &Call) -> Option<Uuid> {
    call.optional::<pgrx::Uuid>(0).map(|project| *project.as_bytes())
}

/// `name text` as the second argument.
pub fn name(call: &Call) -> Result<String> {
    call.required(1, "name")
}

/// Both, and the audit record knows them.
pub fn project_and_name(call: &Call, event: &mut Event) -> Result<(Uuid, String)> {
    let project = project(call)?;
    event.project(&project);
    let name = name(call)?;
    event.name(&name);
    Ok((project, name))
}

/// A point in time; `infinity` is none.
pub fn time(call: &Call, index: usize) -> Option<Timestamp> {
    let time = call.optional::<TimestampWithTimeZone>(index).map(i64::from);
    time.filter(|time| *time != i64::MAX)
}

/// An interval from now, as a point in time; 22023 if it is negative or longer than 1000 years.
pub fn from_now(call: &Call, index: usize, name: &str) -> Result<Option<Timestamp>> {
    let (Some(interval), Some(given)) = (call.raw(index), call.optional::<Interval>(index)) else {
        return Ok(None);
    };
    let invalid = |what| {
        Err(Error::invalid(format!("{name} is {what}."))
            .hint("Give an interval between zero and 1000 years, such as '1 hour'."))
    };
    // Bounded before it is added, which would overflow.
    const YEARS: i64 = 1000;
    let years = (i64::from(given.months()) / 12)
        .max(i64::from(given.days()) / 366)
        .max(given.micros() / (366 * 86_400_000_000));
    let ago = (i64::from(given.months()) / 12)
        .min(i64::from(given.days()) / 366)
        .min(given.micros() / (366 * 86_400_000_000));
    if ago < -YEARS {
        return invalid("negative");
    }
    if years > YEARS {
        return invalid("longer than 1000 years");
    }
    let now = crate::pg::server::now();
    // SAFETY: the function's own arguments: a timestamptz and an interval.
    let until = unsafe {
        direct_function_call::<TimestampWithTimeZone>(
            pg_sys::timestamptz_pl_interval,
            &[Some(Datum::from(now)), Some(interval)],
        )
    };
    match until.map(i64::from) {
        Some(until) if until >= now => Ok(Some(until)),
        _ => invalid("negative"),
    }
}

/// `purpose text`: what a reveal is for.
pub fn purpose(call: &Call, index: usize) -> Result<Option<&str>> {
    match call.optional::<&str>(index) {
        Some(purpose) if purpose.chars().count() > 100 => {
            Err(Error::invalid("purpose has more than 100 characters.")
                .hint("Give a word, such as run, copy or reveal."))
        }
        purpose => Ok(purpose),
    }
}

/// A point in time as a result.
pub fn time_datum(time: Timestamp) -> Option<Datum> {
    Some(Datum::from(time))
}

/// A UUID as a result.
pub fn uuid_datum(id: &Uuid) -> Option<Datum> {
    datum(pgrx::Uuid::from_bytes(*id))
}
