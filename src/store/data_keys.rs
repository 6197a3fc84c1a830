//! `data_keys`.

use super::{Uuid, guard::change};
use crate::{
    error::Result,
    pg::{
        scan::{self, Key, Row, Sees},
        spi::{May, Statement, parameter, uuid},
        user::Acting,
    },
};
use pgrx::pg_sys::{BYTEAOID, INT4OID, TEXTOID, UUIDOID};
use std::ops::ControlFlow;

/// A row, without its project.
pub struct StoredDek {
    pub dek_version: i32,
    pub kek_id: i32,
    pub encrypted: Vec<u8>,
    pub status: String,
}

/// A version of a project's data key.
pub fn find(project: &Uuid, dek_version: i32, sees: Sees) -> Result<Option<StoredDek>> {
    let keys = [Key::uuid(1, project), Key::integer(2, dek_version)];
    scan::rows("data_keys", Some("data_keys_pkey"), sees, &keys, |row| {
        Ok(ControlFlow::Break(stored(row)?))
    })
}

/// All versions of a project's data key, oldest first.
pub fn of_project(project: &Uuid, sees: Sees) -> Result<Vec<StoredDek>> {
    let mut keys = Vec::new();
    scan::rows("data_keys", Some("data_keys_pkey"), sees, &[Key::uuid(1, project)], |row| {
        keys.push(stored(row)?);
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(keys)
}

/// Adds an active data key; false if another transaction was faster with this version. Waits for that
/// one to end.
pub fn insert_active(
    project: &Uuid,
    dek_version: i32,
    kek_id: i32,
    encrypted: &[u8],
) -> Result<bool> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.data_keys (project_id, dek_version, kek_id, dek_encrypted, status) VALUES ($1, $2, $3, $4, 'active') ON CONFLICT DO NOTHING",
        &[UUIDOID, INT4OID, INT4OID, BYTEAOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters =
        [uuid(project), parameter(dek_version), parameter(kek_id), parameter(encrypted)];
    Ok(change(|| INSERT.execute(May::WriteLatest, &parameters))? == 1)
}

/// Gives a data key another wrap and status.
pub fn replace(project: &Uuid, dek_version: i32, encrypted: &[u8], status: &str) -> Result<()> {
    static UPDATE: Statement = Statement::new(
        c"UPDATE meshhook_secrets.data_keys SET dek_encrypted = $3, status = $4 WHERE project_id OPERATOR(pg_catalog.=) $1 AND dek_version OPERATOR(pg_catalog.=) $2",
        &[UUIDOID, INT4OID, BYTEAOID, TEXTOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters =
        [uuid(project), parameter(dek_version), parameter(encrypted), parameter(status)];
    change(|| UPDATE.change_one(&parameters))
}

/// Removes all secrets and data keys of a project: what is left of it in backups without its data
/// keys stays closed for ever.
pub fn shred(project: &Uuid) -> Result<()> {
    static SECRETS: Statement = Statement::new(
        c"DELETE FROM meshhook_secrets.project_secrets WHERE project_id OPERATOR(pg_catalog.=) $1",
        &[UUIDOID],
    );
    static KEYS: Statement = Statement::new(
        c"DELETE FROM meshhook_secrets.data_keys WHERE project_id OPERATOR(pg_catalog.=) $1",
        &[UUIDOID],
    );
    let _owner = Acting::as_owner()?;
    change(|| {
        SECRETS.run(May::WriteLatest, &[uuid(project)], |_| Ok(()))?;
        KEYS.run(May::WriteLatest, &[uuid(project)], |_| Ok(()))
    })
}

/// The projects that have data keys.
pub fn projects() -> Result<Vec<Uuid>> {
    let mut projects = Vec::new();
    scan::rows("data_keys", None, Sees::Latest, &[], |row| {
        let project: pgrx::Uuid = row.required(1)?;
        projects.push(*project.as_bytes());
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    projects.sort_unstable();
    projects.dedup();
    Ok(projects)
}

/// The number of projects whose data keys are disabled.
pub fn sealed_projects() -> Result<i64> {
    let mut projects: Vec<Uuid> = Vec::new();
    scan::rows("data_keys", None, Sees::Statement, &[], |row| {
        if row.required::<String>(5)? == "disabled" {
            projects.push(*row.required::<pgrx::Uuid>(1)?.as_bytes());
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    projects.sort_unstable();
    projects.dedup();
    Ok(projects.len() as i64)
}

fn stored(row: &Row) -> Result<StoredDek> {
    Ok(StoredDek {
        dek_version: row.required(2)?,
        kek_id: row.required(3)?,
        encrypted: row.required(4)?,
        status: row.required(5)?,
    })
}
