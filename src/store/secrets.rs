//! `project_secrets`: statements run as the caller, so that row-level security and column privileges
//! decide, but for removals and key administration, which say so.

use super::{Timestamp, Uuid, guard::change};
use crate::{
    error::{Error, Result},
    pg::{
        spi::{Found, May, Parameter, Statement, parameter, uuid},
        user::Acting,
    },
};
use meshhook_secrets_core::identity::MetadataIdentity;
use pgrx::{
    datum::TimestampWithTimeZone,
    pg_sys::{BYTEAOID, Datum, INT4OID, JSONBOID, TEXTOID, TIMESTAMPTZOID, UUIDOID},
};

macro_rules! select {
    ($rest:literal) => {
        // A text with a NUL of its own would be empty, and refused.
        match std::ffi::CStr::from_bytes_with_nul(
            concat!(
                "SELECT id, name, current_version, oldest_version, dek_version, expires_at, deleted_at, purge_after, mac FROM meshhook_secrets.project_secrets WHERE project_id OPERATOR(pg_catalog.=) $1 ",
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

/// What is needed of a row to use the secret.
#[derive(Clone)]
pub struct Secret {
    pub project_id: Uuid,
    pub id: Uuid,
    pub name: String,
    pub current_version: i32,
    pub oldest_version: i32,
    pub dek_version: i32,
    pub expires_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    pub purge_after: Option<Timestamp>,
    pub mac: Vec<u8>,
}

/// What else a new row holds.
pub struct Description {
    pub description: Option<Datum>,
    pub metadata: Option<Datum>,
    pub now: Timestamp,
}

impl Secret {
    /// What its mac covers.
    pub fn identity(&self) -> MetadataIdentity<'_> {
        MetadataIdentity {
            project_id: self.project_id,
            secret_id: self.id,
            name: &self.name,
            current_version: self.current_version,
            oldest_version: self.oldest_version,
            dek_version: self.dek_version,
            expires_at: self.expires_at,
            deleted_at: self.deleted_at,
            purge_after: self.purge_after,
        }
    }
}

/// The secret of this name, if the caller may see it.
pub fn find(project: &Uuid, name: &str) -> Result<Option<Secret>> {
    static FIND: Statement =
        Statement::new(select!("AND name OPERATOR(pg_catalog.=) $2"), &[UUIDOID, TEXTOID]);
    let parameters = [uuid(project), parameter(name)];
    FIND.run(May::Read, &parameters, |found| first(project, found))
}

/// The secret of this name, locked until the transaction ends.
pub fn find_for_update(project: &Uuid, name: &str) -> Result<Option<Secret>> {
    static FIND: Statement = Statement::new(
        select!("AND name OPERATOR(pg_catalog.=) $2 FOR UPDATE"),
        &[UUIDOID, TEXTOID],
    );
    let parameters = [uuid(project), parameter(name)];
    FIND.run(May::Write, &parameters, |found| first(project, found))
}

/// The secrets of these names, or all of the project.
pub fn find_many(project: &Uuid, names: Option<Datum>) -> Result<Vec<Secret>> {
    static NAMED: Statement = Statement::new(
        select!("AND name OPERATOR(pg_catalog.=) ANY ($2)"),
        &[UUIDOID, pgrx::pg_sys::TEXTARRAYOID],
    );
    static ALL: Statement =
        Statement::new(select!("ORDER BY name USING OPERATOR(pg_catalog.<)"), &[UUIDOID]);
    let read = |found: &Found| (0..found.count()).map(|row| secret(project, found, row)).collect();
    match names {
        Some(names) => NAMED.run(May::Read, &[uuid(project), Some(names)], read),
        None => ALL.run(May::Read, &[uuid(project)], read),
    }
}

/// All secrets of a project, locked until the transaction ends. As the owner.
pub fn all_for_update(project: &Uuid) -> Result<Vec<Secret>> {
    static ALL: Statement = Statement::new(select!("FOR UPDATE"), &[UUIDOID]);
    let _owner = Acting::as_owner()?;
    ALL.run(May::WriteLatest, &[uuid(project)], |found| {
        (0..found.count()).map(|row| secret(project, found, row)).collect()
    })
}

/// The secrets of a project whose mac this version of its data key makes. As the owner.
pub fn all_of_dek(project: &Uuid, dek_version: i32) -> Result<Vec<Secret>> {
    static ALL: Statement =
        Statement::new(select!("AND dek_version OPERATOR(pg_catalog.=) $2"), &[UUIDOID, INT4OID]);
    let _owner = Acting::as_owner()?;
    ALL.run(May::Read, &[uuid(project), parameter(dek_version)], |found| {
        (0..found.count()).map(|row| secret(project, found, row)).collect()
    })
}

/// Writes data key version and mac of a secret, nothing else. As the owner.
pub fn update_mac(secret: &Secret) -> Result<()> {
    static UPDATE: Statement = Statement::new(
        c"UPDATE meshhook_secrets.project_secrets SET dek_version = $3, mac = $4 WHERE project_id OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) $2",
        &[UUIDOID, UUIDOID, INT4OID, BYTEAOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [
        uuid(&secret.project_id),
        uuid(&secret.id),
        parameter(secret.dek_version),
        parameter(secret.mac.as_slice()),
    ];
    change(|| UPDATE.change_one(&parameters))
}

/// Adds a secret; false if another transaction was faster with this name.
pub fn insert(secret: &Secret, description: &Description, created_by: &str) -> Result<bool> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.project_secrets (project_id, id, name, current_version, oldest_version, dek_version, expires_at, deleted_at, purge_after, mac, description, metadata, created_at, updated_at, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $14) ON CONFLICT (project_id, name) DO NOTHING",
        &[
            UUIDOID, UUIDOID, TEXTOID, INT4OID, INT4OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
            TIMESTAMPTZOID, BYTEAOID, TEXTOID, JSONBOID, TIMESTAMPTZOID, TEXTOID,
        ],
    );
    let mut parameters =
        vec![uuid(&secret.project_id), uuid(&secret.id), parameter(secret.name.as_str())];
    parameters.extend(state(secret));
    parameters.extend([
        description.description,
        description.metadata,
        Some(Datum::from(description.now)),
        parameter(created_by),
    ]);
    Ok(change(|| INSERT.execute(May::Write, &parameters))? == 1)
}

/// Writes the state of a secret; description and metadata stay where they are NULL.
pub fn update(secret: &Secret, description: &Description) -> Result<()> {
    static UPDATE: Statement = Statement::new(
        c"UPDATE meshhook_secrets.project_secrets SET current_version = $3, oldest_version = $4, dek_version = $5, expires_at = $6, deleted_at = $7, purge_after = $8, mac = $9, description = COALESCE($10, description), metadata = COALESCE($11, metadata), updated_at = $12 WHERE project_id OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) $2",
        &[
            UUIDOID, UUIDOID, INT4OID, INT4OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
            TIMESTAMPTZOID, BYTEAOID, TEXTOID, JSONBOID, TIMESTAMPTZOID,
        ],
    );
    let mut parameters = vec![uuid(&secret.project_id), uuid(&secret.id)];
    parameters.extend(state(secret));
    parameters.extend([
        description.description,
        description.metadata,
        Some(Datum::from(description.now)),
    ]);
    match change(|| UPDATE.execute(May::Write, &parameters))? {
        1 => Ok(()),
        // Visible a moment ago and locked since: only a policy that forbids writing hides it now.
        _ => Err(Error::not_permitted()),
    }
}

/// Removes a secret with all its versions. As the owner: the privilege to delete would also allow
/// LOCK TABLE, and the row was found and locked as the caller just before.
pub fn delete(secret: &Secret) -> Result<()> {
    static DELETE: Statement = Statement::new(
        c"DELETE FROM meshhook_secrets.project_secrets WHERE project_id OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) $2",
        &[UUIDOID, UUIDOID],
    );
    let _owner = Acting::as_owner()?;
    change(|| DELETE.change_one(&[uuid(&secret.project_id), uuid(&secret.id)]))
}

fn state(secret: &Secret) -> [Parameter; 7] {
    [
        parameter(secret.current_version),
        parameter(secret.oldest_version),
        parameter(secret.dek_version),
        secret.expires_at.map(Datum::from),
        secret.deleted_at.map(Datum::from),
        secret.purge_after.map(Datum::from),
        parameter(secret.mac.as_slice()),
    ]
}

fn first(project: &Uuid, found: &Found) -> Result<Option<Secret>> {
    if found.count() == 0 { Ok(None) } else { secret(project, found, 0).map(Some) }
}

fn secret(project: &Uuid, found: &Found, row: usize) -> Result<Secret> {
    let time = |column| found.get::<TimestampWithTimeZone>(row, column).map(i64::from);
    let id: pgrx::Uuid = found.get(row, 1).ok_or_else(Error::corrupted)?;
    Ok(Secret {
        project_id: *project,
        id: *id.as_bytes(),
        name: found.get(row, 2).ok_or_else(Error::corrupted)?,
        current_version: found.get(row, 3).ok_or_else(Error::corrupted)?,
        oldest_version: found.get(row, 4).ok_or_else(Error::corrupted)?,
        dek_version: found.get(row, 5).ok_or_else(Error::corrupted)?,
        expires_at: time(6),
        deleted_at: time(7),
        purge_after: time(8),
        mac: found.get(row, 9).ok_or_else(Error::corrupted)?,
    })
}
