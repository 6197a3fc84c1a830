//! Looking for records.

use super::Event;
use crate::{
    error::{Error, Result},
    pg::{
        server,
        spi::{Found, LatestState},
        user,
    },
    service::access,
    shmem::audit as ring,
    store::{
        Uuid,
        audit::{self as store, Filter},
    },
};
use meshhook_secrets_core::audit::{Outcome, Record};

/// What is looked for.
pub struct Query<'a> {
    pub project: Option<Uuid>,
    pub filter: Filter<'a>,
}

/// Checks the query, and narrows it to the projects that the caller is a member of.
pub fn prepare(query: &mut Query<'_>, event: &mut Event) -> Result<()> {
    if !(1..=1000).contains(&query.filter.page_size) {
        return Err(Error::invalid("page_size is not between 1 and 1000.")
            .hint("Ask for the next page with after => the last id of this one."));
    }
    if query.filter.outcome.is_some_and(|outcome| Outcome::parse(outcome).is_none()) {
        return Err(Error::invalid("There is no such outcome.")
            .hint("The outcomes are: ok, denied, not_found, error."));
    }
    if let Some(project) = &query.project {
        event.project(project);
    }
    let project = query.project.map(pgrx::Uuid::from_bytes);
    query.filter.projects = match (project, user::bypasses_rls()) {
        (None, true) => None,
        (Some(project), true) => Some(vec![project]),
        (None, false) => Some(access::member_projects()?),
        (Some(project), false) if access::member_projects()?.contains(&project) => {
            Some(vec![project])
        }
        (Some(_), false) => return Err(Error::not_permitted()),
    };
    Ok(())
}

/// The state to search in. For the first page, what happened before this call is written first, as far as
/// that can be done.
pub fn state(query: &Query<'_>) -> Result<LatestState> {
    if query.filter.after.is_none() && !server::in_recovery() {
        const PATIENCE: i64 = 2_000_000;
        ring::flush(server::database(), server::uptime() + PATIENCE)?;
    }
    Ok(LatestState::begin())
}

/// The newest records that have no seal yet: they come before the first page, and their number is taken
/// off its size.
pub fn unsealed(query: &mut Query<'_>) -> Result<Vec<Record>> {
    if query.filter.after.is_some() {
        return Ok(Vec::new());
    }
    let mut pending: Vec<Record> = store::pending()?
        .iter()
        .filter_map(|bytes| Record::decode(bytes).ok())
        .filter(|record| matches(record, &query.filter))
        .collect();
    pending.sort_by_key(|record| std::cmp::Reverse(record.time));
    pending.truncate(query.filter.page_size as usize);
    query.filter.page_size -= pending.len() as i64;
    Ok(pending)
}

/// A page of the log, newest first.
pub fn page(query: &Query<'_>, read: impl FnOnce(&Found) -> Result<()>) -> Result<()> {
    store::search(&query.filter, read)
}

fn matches(record: &Record, filter: &Filter<'_>) -> bool {
    let same = |wanted: Option<&str>, texts: &[Option<&str>]| {
        wanted.is_none_or(|wanted| texts.contains(&Some(wanted)))
    };
    let of_project = |projects: &Vec<pgrx::Uuid>| {
        record.project_id.is_some_and(|id| projects.contains(&pgrx::Uuid::from_bytes(id)))
    };
    filter.projects.as_ref().is_none_or(of_project)
        && filter.since.is_none_or(|since| record.time >= since)
        && filter.until.is_none_or(|until| record.time < until)
        && same(filter.action, &[Some(&record.action)])
        && same(filter.outcome, &[Some(record.outcome.as_str())])
        && same(
            filter.actor,
            &[Some(&record.actor), record.actor_role.as_deref(), record.claimed_sub.as_deref()],
        )
        && same(filter.name, &[record.name.as_deref()])
}
