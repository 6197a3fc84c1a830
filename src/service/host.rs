//! What happens in the host's projects table.

use crate::{
    error::{Error, Result},
    pg::{scan::Sees, spi::May},
    store::{Uuid, binding, data_keys},
};
use std::collections::HashSet;

/// A project was deleted: its secrets and data keys go.
pub fn project_deleted(project: &Uuid) -> Result<()> {
    data_keys::shred(project)
}

/// A row was deleted in a partition: if it merely moved to another one, the project still exists.
pub fn project_left_partition(project: &Uuid) -> Result<()> {
    match binding::current()? {
        Some(binding) if binding.exists(project, May::Write)? => Ok(()),
        _ => project_deleted(project),
    }
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
    let remaining: HashSet<Uuid> = match binding::current()? {
        Some(binding) => binding.remaining()?.into_iter().collect(),
        None => return Ok(()),
    };
    for project in data_keys::projects()? {
        if !remaining.contains(&project) {
            data_keys::shred(&project)?;
        }
    }
    Ok(())
}
