//! `secret_list` and its kin.

use super::arguments::{from_now, optional_project, project, project_and_name, time_datum};
use crate::{
    error::{Error, Result},
    pg::{
        call::{Answer, Call, datum},
        rows::Rows,
        spi::{Found, May},
    },
    service::{
        audit::{Kind, recorded},
        browse,
    },
    store::{Uuid, browse::Page},
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
    recorded(Kind::Look, "secret_list", |event| {
        let project = project(&call)?;
        event.project(&project);
        let page = Page {
            search: call.optional(1),
            include_deleted: call.required(2, "include_deleted")?,
            after: call.optional(3),
            size: call.required(4, "page_size")?,
        };
        let mut rows = Rows::begin(&call)?;
        browse::list(&project, &page, |found| pass_on(&mut rows, found))?;
        rows.done()
    })
}

fn describe(call: Call) -> Answer {
    recorded(Kind::Look, "secret_describe", |event| {
        let (project, name) = project_and_name(&call, event)?;
        info(&call, &project, &name, May::Read)
    })
}

/// A secret, as secret_info.
pub fn info(call: &Call, project: &Uuid, name: &str, may: May) -> Answer {
    // The row is copied into the caller's memory before SPI's is freed.
    let context = crate::pg::call::Memory::current();
    browse::describe(project, name, may, |found| context.run(|| call.record(&columns(found, 0))))
}

fn versions(call: Call) -> Answer {
    recorded(Kind::Look, "secret_versions", |event| {
        let (project, name) = project_and_name(&call, event)?;
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
    })
}

fn due(call: Call) -> Answer {
    recorded(Kind::Look, "secret_due", |event| {
        let project = optional_project(&call);
        if let Some(project) = &project {
            event.project(project);
        }
        let until = from_now(&call, 1, "within")?.ok_or_else(|| Error::null_argument("within"))?;
        let mut rows = Rows::begin(&call)?;
        browse::due(project.as_ref(), time_datum(until), |found| pass_on(&mut rows, found))?;
        rows.done()
    })
}

fn pass_on(rows: &mut Rows, found: &Found) -> Result<()> {
    (0..found.count()).try_for_each(|row| rows.push(&columns(found, row)))
}

fn columns(found: &Found, row: usize) -> Vec<Option<pgrx::pg_sys::Datum>> {
    (1..=found.width()).map(|column| found.raw(row, column)).collect()
}
