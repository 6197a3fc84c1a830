//! Who may do what in which project.
//!
//! Row-level security answers first: a row that the caller's statement found is a row of a project
//! that the caller is a member of. The questions here are asked where there is no row to find.

use crate::{
    error::{Error, Result},
    pg::{server, session, spi::May, user},
    store::{Uuid, binding, guard, subscription},
};

/// The projects that the caller is a member of; the row-level security policies ask this.
pub fn member_projects() -> Result<Vec<pgrx::Uuid>> {
    let Some(binding) = binding::current()? else {
        return Ok(Vec::new());
    };
    let subject = session::claim("sub");
    // A claim that cannot be a user id of the host is nobody's.
    let subject = match subject {
        Some(subject) if binding.subject_must_be_uuid()? => {
            Some(subject).filter(|subject| looks_like_uuid(subject))
        }
        other => other,
    };
    guard::foreign(|| binding.member_projects(subject.as_deref()))
}

/// 42501 unless the caller is a member of the project, or row-level security does not apply to the
/// caller and the project exists (without a binding: any project).
pub fn require_member(project: &Uuid) -> Result<()> {
    let member = if user::bypasses_rls() {
        match binding::current()? {
            Some(binding) => binding.exists(project, May::Read)?,
            None => true,
        }
    } else {
        contains(&member_projects()?, project)
    };
    if member { Ok(()) } else { Err(Error::not_permitted()) }
}

/// As [`require_member`], for the first secret of a name: the project must exist and stays until the
/// transaction ends (23503).
pub fn require_project(project: &Uuid) -> Result<()> {
    if !user::bypasses_rls() && !contains(&member_projects()?, project) {
        return Err(Error::not_permitted());
    }
    match binding::current()? {
        Some(binding) if !binding.exists_and_stays(project)? => Err(Error::no_such_project()),
        _ => Ok(()),
    }
}

/// 42501 unless the caller may reveal the secrets of this project, of which it is a member.
pub fn require_reveal(project: &Uuid) -> Result<()> {
    if user::bypasses_rls() {
        return Ok(());
    }
    let revealable = match binding::current()? {
        Some(binding) => binding.revealable_projects()?,
        None => return Err(Error::not_permitted()),
    };
    match revealable {
        Some(projects) if !contains(&projects, project) => Err(Error::not_permitted()),
        _ => Ok(()),
    }
}

/// 42501 unless the change comes from our own functions, or from a superuser (a restore).
pub fn require_own_change() -> Result<()> {
    if guard::is_ours() || user::is_superuser() {
        return Ok(());
    }
    Err(Error::new("42501", "tables of meshhook_secrets cannot be changed directly")
        .detail("Rows written past the functions would not authenticate.")
        .hint("Use the functions of the schema meshhook_secrets."))
}

/// 25006 where keys and secrets cannot be changed: on a standby, in a read-only transaction, and where a
/// subscription keeps them. What was written beside that would get lost with the next change of the
/// publisher's, or wrapped by a KEK that the publisher destroys, who knows nothing of it.
pub fn require_writable() -> Result<()> {
    server::require_writable()?;
    if is_subscriber()? { Err(Error::subscribed()) } else { Ok(()) }
}

/// Whether keys and secrets of this database are a publisher's.
pub fn is_subscriber() -> Result<bool> {
    subscription::keeps_our_tables()
}

/// Who writes, for `created_by`: the user of the JWT as claimed, else the role.
pub fn author() -> String {
    session::claim("sub").unwrap_or_else(user::current_name)
}

fn looks_like_uuid(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let hyphens = [8, 13, 18, 23];
    text.len() == 36 && digits == 32 && hyphens.iter().all(|at| text.as_bytes()[*at] == b'-')
}

fn contains(projects: &[pgrx::Uuid], project: &Uuid) -> bool {
    projects.iter().any(|member| member.as_bytes() == project)
}
