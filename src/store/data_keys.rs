//! `data_keys`.

use super::{Uuid, guard::change};
use crate::{
    error::{Error, Result},
    pg::{
        scan::{self, Key, Row, Sees},
        spi::{May, Statement, parameter, uuid},
        user::Acting,
    },
};
use pgrx::pg_sys::{BYTEAOID, INT4OID, INT8OID, TEXTOID, UUIDOID};
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

/// Keeps a data key from being removed until the transaction ends: whoever seals with it holds this.
pub fn hold(project: &Uuid, dek_version: i32) -> Result<()> {
    static HOLD: Statement = Statement::new(
        c"SELECT FROM meshhook_secrets.data_keys WHERE project_id OPERATOR(pg_catalog.=) $1 AND dek_version OPERATOR(pg_catalog.=) $2 FOR KEY SHARE",
        &[UUIDOID, INT4OID],
    );
    let _owner = Acting::as_owner()?;
    HOLD.run(May::WriteLatest, &[uuid(project), parameter(dek_version)], |_| Ok(()))
}

/// Waits until nobody holds the data keys of a project, and keeps everybody from them until the
/// transaction ends. How many there were.
pub fn seize(project: &Uuid) -> Result<usize> {
    static SEIZE: Statement = Statement::new(
        c"SELECT FROM meshhook_secrets.data_keys WHERE project_id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
        &[UUIDOID],
    );
    let _owner = Acting::as_owner()?;
    SEIZE.execute(May::WriteLatest, &[uuid(project)])
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

/// A data key to be rewrapped.
pub struct Wrapped {
    pub project_id: Uuid,
    pub key: StoredDek,
}

/// How many data keys a KEK wraps.
pub fn count_of_kek(kek_id: i32) -> Result<i64> {
    static COUNT: Statement = Statement::new(
        c"SELECT pg_catalog.count(*) FROM meshhook_secrets.data_keys WHERE kek_id OPERATOR(pg_catalog.=) $1",
        &[INT4OID],
    );
    let _owner = Acting::as_owner()?;
    COUNT.run(May::WriteLatest, &[parameter(kek_id)], |found| Ok(found.get(0, 1).unwrap_or(0)))
}

/// Data keys that a KEK wraps, after this one in the order of project and version; locked until the
/// transaction ends. Those that others have locked are left out.
pub fn take_of_kek(kek_id: i32, after: (&Uuid, i32), limit: i64) -> Result<Vec<Wrapped>> {
    static TAKE: Statement = Statement::new(
        c"SELECT project_id, dek_version, dek_encrypted, status FROM meshhook_secrets.data_keys WHERE kek_id OPERATOR(pg_catalog.=) $1 AND (project_id, dek_version) OPERATOR(pg_catalog.>) ($2, $3) ORDER BY project_id USING OPERATOR(pg_catalog.<), dek_version USING OPERATOR(pg_catalog.<) LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED",
        &[INT4OID, UUIDOID, INT4OID, INT8OID],
    );
    of_kek(&TAKE, May::Write, kek_id, after, limit)
}

/// As [`take_of_kek`], without locking.
pub fn list_of_kek(kek_id: i32, after: (&Uuid, i32), limit: i64) -> Result<Vec<Wrapped>> {
    static LIST: Statement = Statement::new(
        c"SELECT project_id, dek_version, dek_encrypted, status FROM meshhook_secrets.data_keys WHERE kek_id OPERATOR(pg_catalog.=) $1 AND (project_id, dek_version) OPERATOR(pg_catalog.>) ($2, $3) ORDER BY project_id USING OPERATOR(pg_catalog.<), dek_version USING OPERATOR(pg_catalog.<) LIMIT $4",
        &[INT4OID, UUIDOID, INT4OID, INT8OID],
    );
    of_kek(&LIST, May::Read, kek_id, after, limit)
}

/// Moves a data key to another KEK, by its new wrap.
pub fn rewrap(project: &Uuid, dek_version: i32, kek_id: i32, encrypted: &[u8]) -> Result<()> {
    static UPDATE: Statement = Statement::new(
        c"UPDATE meshhook_secrets.data_keys SET kek_id = $3, dek_encrypted = $4, rotated_at = pg_catalog.now() WHERE project_id OPERATOR(pg_catalog.=) $1 AND dek_version OPERATOR(pg_catalog.=) $2",
        &[UUIDOID, INT4OID, INT4OID, BYTEAOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters =
        [uuid(project), parameter(dek_version), parameter(kek_id), parameter(encrypted)];
    change(|| UPDATE.change_one(&parameters))
}

/// Removes a version of a project's data key.
pub fn delete(project: &Uuid, dek_version: i32) -> Result<()> {
    static DELETE: Statement = Statement::new(
        c"DELETE FROM meshhook_secrets.data_keys WHERE project_id OPERATOR(pg_catalog.=) $1 AND dek_version OPERATOR(pg_catalog.=) $2",
        &[UUIDOID, INT4OID],
    );
    let _owner = Acting::as_owner()?;
    change(|| DELETE.change_one(&[uuid(project), parameter(dek_version)]))
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
    static COUNT: Statement = Statement::new(
        c"SELECT pg_catalog.count(DISTINCT project_id) FROM meshhook_secrets.data_keys WHERE status OPERATOR(pg_catalog.=) 'disabled'",
        &[],
    );
    let _owner = Acting::as_owner()?;
    COUNT.run(May::Read, &[], |found| Ok(found.get(0, 1).unwrap_or(0)))
}

fn of_kek(
    statement: &'static Statement,
    may: May,
    kek_id: i32,
    after: (&Uuid, i32),
    limit: i64,
) -> Result<Vec<Wrapped>> {
    let _owner = Acting::as_owner()?;
    let parameters = [parameter(kek_id), uuid(after.0), parameter(after.1), parameter(limit)];
    statement.run(may, &parameters, |found| {
        let read = |row| {
            let project: pgrx::Uuid = found.get(row, 1).ok_or_else(Error::corrupted)?;
            Ok(Wrapped {
                project_id: *project.as_bytes(),
                key: StoredDek {
                    dek_version: found.get(row, 2).ok_or_else(Error::corrupted)?,
                    kek_id,
                    encrypted: found.get(row, 3).ok_or_else(Error::corrupted)?,
                    status: found.get(row, 4).ok_or_else(Error::corrupted)?,
                },
            })
        };
        (0..found.count()).map(read).collect()
    })
}

fn stored(row: &Row) -> Result<StoredDek> {
    Ok(StoredDek {
        dek_version: row.required(2)?,
        kek_id: row.required(3)?,
        encrypted: row.required(4)?,
        status: row.required(5)?,
    })
}
