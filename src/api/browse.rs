//! `secret_list` and its kin.

use super::arguments::{from_now, name, optional_project, project, time_datum};
use crate::{
    error::{Error, Result},
    pg::{
        call::{Answer, Call, datum},
        rows::Rows,
        spi::{Found, May},
    },
    service::browse,
    store::browse::Page,
};

crate::sql_functions! {
    /// `secret_list(project_id, search, include_deleted, after, page_size)`
    meshhook_secrets_secret_list = list;
    /// `secret_describe(project_id, name)`
    meshhook_secrets_secret_describe = describe;
    /// `secret_versions(project_id, name)`
    meshhook_secrets_secret_versions = versions;
    /// `secret_due(project_id, within)`
    meshhook_secrets_secret_due = due;
}

fn list(call: Call) -> Answer {
    let project = project(&call)?;
    let page = Page {
        search: call.optional(1),
        include_deleted: call.required(2, "include_deleted")?,
        after: call.optional(3),
        size: call.required(4, "page_size")?,
    };
    let mut rows = Rows::begin(&call)?;
    browse::list(&project, &page, |found| pass_on(&mut rows, found))?;
    rows.done()
}

fn describe(call: Call) -> Answer {
    info(&call, May::Read)
}

/// The secret of this call, as secret_info.
pub fn info(call: &Call, may: May) -> Answer {
    let (project, name) = (project(call)?, name(call)?);
    // The row is copied into the caller's memory before SPI's is freed.
    let context = crate::pg::call::Memory::current();
    browse::describe(&project, &name, may, |found| context.run(|| call.record(&columns(found, 0))))
}

fn versions(call: Call) -> Answer {
    let (project, name) = (project(&call)?, name(&call)?);
    let versions = browse::versions(&project, &name)?;
    let mut rows = Rows::begin(&call)?;
    for version in versions {
        rows.push(&[
            datum(version.version),
            datum(version.status),
            datum(version.is_current),
            time_datum(version.created_at),
            datum(version.created_by),
            version.expires_at.and_then(time_datum),
        ])?;
    }
    rows.done()
}

fn due(call: Call) -> Answer {
    let project = optional_project(&call);
    let until = from_now(&call, 1, "within")?.ok_or_else(|| Error::null_argument("within"))?;
    let mut rows = Rows::begin(&call)?;
    browse::due(project.as_ref(), time_datum(until), |found| pass_on(&mut rows, found))?;
    rows.done()
}

fn pass_on(rows: &mut Rows, found: &Found) -> Result<()> {
    (0..found.count()).try_for_each(|row| rows.push(&columns(found, row)))
}

fn columns(found: &Found, row: usize) -> Vec<Option<pgrx::pg_sys::Datum>> {
    (1..=found.width()).map(|column| found.raw(row, column)).collect()
}
