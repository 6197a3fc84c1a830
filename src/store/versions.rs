//! `secret_versions`.

use super::{Timestamp, Uuid, guard::change};
use crate::{
    error::Result,
    pg::{
        scan::{self, Key, Row, Sees},
        spi::{May, Statement, parameter, uuid},
        user::Acting,
    },
};
use pgrx::{
    datum::TimestampWithTimeZone,
    pg_sys::{BYTEAOID, Datum, INT4OID, TEXTOID, TIMESTAMPTZOID, UUIDOID},
};
use std::ops::ControlFlow;

/// A row, without the secret it belongs to.
pub struct StoredVersion {
    pub version: i32,
    pub dek_version: i32,
    pub value: Vec<u8>,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
}

/// A version of a secret.
pub fn find(
    project: &Uuid,
    secret: &Uuid,
    version: i32,
    sees: Sees,
) -> Result<Option<StoredVersion>> {
    let keys = [Key::uuid(1, project), Key::uuid(2, secret), Key::integer(3, version)];
    scan::rows("secret_versions", Some("secret_versions_pkey"), sees, &keys, |row| {
        Ok(ControlFlow::Break(stored(row)?))
    })
}

/// The stored versions of a secret, oldest first.
pub fn of_secret(project: &Uuid, secret: &Uuid, sees: Sees) -> Result<Vec<StoredVersion>> {
    let mut versions = Vec::new();
    let keys = [Key::uuid(1, project), Key::uuid(2, secret)];
    let index = Some("secret_versions_pkey");
    scan::rows("secret_versions", index, sees, &keys, |row| {
        versions.push(stored(row)?);
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(versions)
}

/// Adds a version.
pub fn insert(project: &Uuid, secret: &Uuid, version: &StoredVersion) -> Result<()> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.secret_versions (project_id, secret_id, version, dek_version, value, created_at, created_by, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[UUIDOID, UUIDOID, INT4OID, INT4OID, BYTEAOID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [
        uuid(project),
        uuid(secret),
        parameter(version.version),
        parameter(version.dek_version),
        parameter(version.value.as_slice()),
        Some(Datum::from(version.created_at)),
        parameter(version.created_by.as_str()),
        version.expires_at.map(Datum::from),
    ];
    change(|| INSERT.change_one(&parameters))
}

/// Gives a version another seal and expiry.
pub fn replace(
    project: &Uuid,
    secret: &Uuid,
    version: i32,
    dek_version: i32,
    value: &[u8],
    expires_at: Option<Timestamp>,
) -> Result<()> {
    static UPDATE: Statement = Statement::new(
        c"UPDATE meshhook_secrets.secret_versions SET dek_version = $6, value = $4, expires_at = $5 WHERE project_id OPERATOR(pg_catalog.=) $1 AND secret_id OPERATOR(pg_catalog.=) $2 AND version OPERATOR(pg_catalog.=) $3",
        &[UUIDOID, UUIDOID, INT4OID, BYTEAOID, TIMESTAMPTZOID, INT4OID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [
        uuid(project),
        uuid(secret),
        parameter(version),
        parameter(value),
        expires_at.map(Datum::from),
        parameter(dek_version),
    ];
    change(|| UPDATE.change_one(&parameters))
}

/// Destroys the versions before `oldest`.
pub fn destroy_before(project: &Uuid, secret: &Uuid, oldest: i32) -> Result<()> {
    static DELETE: Statement = Statement::new(
        c"DELETE FROM meshhook_secrets.secret_versions WHERE project_id OPERATOR(pg_catalog.=) $1 AND secret_id OPERATOR(pg_catalog.=) $2 AND version OPERATOR(pg_catalog.<) $3",
        &[UUIDOID, UUIDOID, INT4OID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [uuid(project), uuid(secret), parameter(oldest)];
    change(|| DELETE.run(May::WriteLatest, &parameters, |_| Ok(())))
}

fn stored(row: &Row) -> Result<StoredVersion> {
    let time = |time: TimestampWithTimeZone| i64::from(time);
    Ok(StoredVersion {
        version: row.required(3)?,
        dek_version: row.required(4)?,
        value: row.required(5)?,
        created_at: time(row.required(6)?),
        created_by: row.required(7)?,
        expires_at: row.optional(8).map(time),
    })
}
