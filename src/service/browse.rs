//! Looking around: never a value, and no key needed.

use super::access;
use crate::{
    error::{Error, Result},
    pg::{
        scan::Sees,
        server,
        spi::{Found, May, Parameter},
    },
    store::{
        Timestamp, Uuid,
        browse::{self, Page},
        secrets, versions,
    },
};
use meshhook_secrets_core::name::SecretName;

/// A version without its value.
pub struct VersionInfo {
    pub version: i32,
    pub status: &'static str,
    pub is_current: bool,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
}

/// A page of a project's secrets, as secret_info.
pub fn list<T>(
    project: &Uuid,
    page: &Page<'_>,
    read: impl FnOnce(&Found) -> Result<T>,
) -> Result<T> {
    if !(1..=1000).contains(&page.size) {
        return Err(Error::invalid("page_size is not between 1 and 1000.")
            .hint("Ask for the next page with after => the last name of this one."));
    }
    access::require_member(project)?;
    browse::list(project, page, read)
}

/// A secret, as secret_info. `May::Write` sees what this very call has changed.
pub fn describe<T>(
    project: &Uuid,
    name: &str,
    may: May,
    read: impl FnOnce(&Found) -> Result<T>,
) -> Result<T> {
    let name = SecretName::parse(name)?;
    let described = browse::describe(project, name.as_str(), may, |found| match found.count() {
        0 => Ok(None),
        _ => read(found).map(Some),
    })?;
    match described {
        Some(described) => Ok(described),
        None => {
            access::require_member(project)?;
            Err(Error::no_such_secret())
        }
    }
}

/// The versions of a secret, newest first.
pub fn versions(project: &Uuid, name: &str) -> Result<Vec<VersionInfo>> {
    let name = SecretName::parse(name)?;
    let Some(secret) = secrets::find(project, name.as_str())? else {
        access::require_member(project)?;
        return Err(Error::no_such_secret());
    };
    let now = server::now();
    let stored = versions::of_secret(project, &secret.id, Sees::Statement)?;
    let info = |stored: versions::StoredVersion| VersionInfo {
        version: stored.version,
        status: if secret.deleted_at.is_some() {
            "deleted"
        } else if stored.expires_at.is_some_and(|at| at <= now) {
            "expired"
        } else {
            "enabled"
        },
        is_current: stored.version == secret.current_version,
        created_at: stored.created_at,
        created_by: stored.created_by,
        expires_at: stored.expires_at,
    };
    Ok(stored.into_iter().rev().map(info).collect())
}

/// The secrets that expire before `until`.
pub fn due<T>(
    project: Option<&Uuid>,
    until: Parameter,
    read: impl FnOnce(&Found) -> Result<T>,
) -> Result<T> {
    if let Some(project) = project {
        access::require_member(project)?;
    }
    browse::due(project, until, read)
}
