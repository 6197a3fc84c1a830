//! `project_secrets` for people: rows that go out as they are found. Runs as the caller.

use super::Uuid;
use crate::{
    error::Result,
    pg::spi::{Found, May, Parameter, Statement, parameter, uuid},
};
use pgrx::pg_sys::{BOOLOID, INT4OID, TEXTOID, TIMESTAMPTZOID, UUIDOID};

macro_rules! info {
    ($rest:literal) => {
        // The columns of the type secret_info. A text with a NUL of its own would be empty, and refused.
        match std::ffi::CStr::from_bytes_with_nul(
            concat!(
                "SELECT id, name, description, metadata, current_version, CASE WHEN deleted_at IS NOT NULL THEN 'deleted' WHEN expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() THEN 'expired' ELSE 'enabled' END, created_at, updated_at, created_by, expires_at, deleted_at, purge_after FROM meshhook_secrets.project_secrets WHERE ",
                $rest,
                "\0"
            )
            .as_bytes(),
        ) {
            Ok(text) => text,
            Err(_) => c"",
        }
    };
}

/// What a page of a list holds.
pub struct Page<'a> {
    pub search: Option<&'a str>,
    pub include_deleted: bool,
    pub after: Option<&'a str>,
    pub size: i32,
}

/// A page of a project's secrets, as secret_info.
pub fn list<T>(
    project: &Uuid,
    page: &Page<'_>,
    read: impl FnOnce(&Found) -> Result<T>,
) -> Result<T> {
    static LIST: Statement = Statement::new(
        info!(
            "project_id OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL OR name OPERATOR(pg_catalog.>) $2) AND ($3 OR deleted_at IS NULL) AND ($4 IS NULL OR pg_catalog.strpos(pg_catalog.lower(name), pg_catalog.lower($4)) OPERATOR(pg_catalog.>) 0 OR pg_catalog.strpos(pg_catalog.lower(description), pg_catalog.lower($4)) OPERATOR(pg_catalog.>) 0) ORDER BY name USING OPERATOR(pg_catalog.<) LIMIT $5"
        ),
        &[UUIDOID, TEXTOID, BOOLOID, TEXTOID, INT4OID],
    );
    let parameters = [
        uuid(project),
        page.after.and_then(parameter),
        parameter(page.include_deleted),
        page.search.and_then(parameter),
        parameter(page.size),
    ];
    LIST.run(May::Read, &parameters, read)
}

/// A secret, as secret_info.
pub fn describe<T>(
    project: &Uuid,
    name: &str,
    may: May,
    read: impl FnOnce(&Found) -> Result<T>,
) -> Result<T> {
    static DESCRIBE: Statement = Statement::new(
        info!("project_id OPERATOR(pg_catalog.=) $1 AND name OPERATOR(pg_catalog.=) $2"),
        &[UUIDOID, TEXTOID],
    );
    DESCRIBE.run(may, &[uuid(project), parameter(name)], read)
}

/// The secrets that expire before `until`: project_id, name, version, expires_at, status.
pub fn due<T>(
    project: Option<&Uuid>,
    until: Parameter,
    read: impl FnOnce(&Found) -> Result<T>,
) -> Result<T> {
    static DUE: Statement = Statement::new(
        c"SELECT project_id, name, current_version, expires_at, CASE WHEN expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() THEN 'expired' ELSE 'due' END FROM meshhook_secrets.project_secrets WHERE ($1 IS NULL OR project_id OPERATOR(pg_catalog.=) $1) AND expires_at OPERATOR(pg_catalog.<=) $2 AND deleted_at IS NULL ORDER BY expires_at USING OPERATOR(pg_catalog.<), name USING OPERATOR(pg_catalog.<)",
        &[UUIDOID, TIMESTAMPTZOID],
    );
    DUE.run(May::Read, &[project.and_then(uuid), until], read)
}
