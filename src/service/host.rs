//! What happens in the host's projects table.

use super::audit;
use crate::{
    error::{Error, Result},
    pg::{scan::Sees, spi::May},
    store::{
        Uuid,
        binding::{self, Binding},
        data_keys,
    },
};
use std::{collections::HashSet, rc::Rc};

/// A project was deleted: its secrets and data keys go.
pub fn project_deleted(project: &Uuid) -> Result<()> {
    if data_keys::of_project(project, Sees::Latest)?.is_empty() {
        return data_keys::shred(project);
    }
    data_keys::shred(project)?;
    audit::note("project_deleted", |event| event.project(project))
}

/// A row was deleted in a partition: if it merely moved to another one, the project still exists.
pub fn project_left_partition(project: &Uuid) -> Result<()> {
    if bound()?.exists(project, May::Write).map_err(changed)? {
        return Ok(());
    }
    project_deleted(project)
}

/// The id of a project was changed: refused if it has data keys, which are bound to the id.
pub fn project_renamed(before: &Uuid) -> Result<()> {
    if data_keys::of_project(before, Sees::Latest)?.is_empty() {
        return Ok(());
    }
    Err(Error::new("23503", "project has secrets")
        .detail(
            "Secrets are bound to the id of their project, which cannot change while it has any.",
        )
        .hint("Make a new project and store its secrets there."))
}

/// All projects may have gone at once.
pub fn projects_truncated() -> Result<()> {
    let remaining: HashSet<Uuid> = bound()?.remaining().map_err(changed)?.into_iter().collect();
    for project in data_keys::projects()? {
        if !remaining.contains(&project) {
            project_deleted(&project)?;
        }
    }
    Ok(())
}

fn bound() -> Result<Rc<Binding>> {
    binding::current().map_err(changed)?.ok_or_else(table_changed)
}

/// A refusal of the binding's is none of the caller's, who only changes a table of its own.
fn changed(error: Error) -> Error {
    match error {
        Error::Refused(_) => table_changed(),
        error @ Error::Postgres(_) => error,
    }
}

/// 55000: the table is not as it was when it was attached, or the binding is lost.
fn table_changed() -> Error {
    Error::new("55000", "projects table has changed since it was attached")
        .detail("The table or column given to meshhook_secrets.attach_projects is not found any more, or the binding is lost.")
        .hint("Call meshhook_secrets.attach_projects again, or drop the triggers meshhook_secrets_* of the table.")
}
