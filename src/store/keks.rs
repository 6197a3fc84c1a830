//! `kek_storage`.

use super::{Timestamp, guard::change};
use crate::{
    error::{Error, Result},
    pg::{
        scan::{self, Key, Row, Sees},
        spi::{May, Statement, parameter},
        user::Acting,
    },
};
use pgrx::{
    datum::TimestampWithTimeZone,
    pg_sys::{BYTEAOID, Datum, INT4OID, TEXTOID, TIMESTAMPTZOID},
};
use std::ops::ControlFlow;

/// A row.
pub struct StoredKek {
    pub kek_id: i32,
    /// `None` once destroyed.
    pub encrypted: Option<Vec<u8>>,
    pub root_key_id: String,
    pub status: String,
    pub created_at: Timestamp,
    pub rotated_at: Option<Timestamp>,
    pub retired_at: Option<Timestamp>,
    pub destroy_after: Option<Timestamp>,
    pub destroyed_at: Option<Timestamp>,
}

/// The KEK with this id.
pub fn find(kek_id: i32, sees: Sees) -> Result<Option<StoredKek>> {
    let key = [Key::integer(1, kek_id)];
    scan::rows("kek_storage", Some("kek_storage_pkey"), sees, &key, |row| {
        Ok(ControlFlow::Break(stored(row)?))
    })
}

/// All KEKs. There are few.
pub fn all(sees: Sees) -> Result<Vec<StoredKek>> {
    let mut keks = Vec::new();
    scan::rows("kek_storage", None, sees, &[], |row| {
        keks.push(stored(row)?);
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(keks)
}

/// Adds a KEK.
pub fn insert(kek_id: i32, encrypted: &[u8], root_key_id: &str, status: &str) -> Result<()> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.kek_storage (kek_id, kek_encrypted, root_key_id, status) VALUES ($1, $2, $3, $4)",
        &[INT4OID, BYTEAOID, TEXTOID, TEXTOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters =
        [parameter(kek_id), parameter(encrypted), parameter(root_key_id), parameter(status)];
    change(|| INSERT.change_one(&parameters))
}

/// Gives a KEK another wrap and status; the time of each step is kept with it.
pub fn update(
    kek_id: i32,
    encrypted: Option<&[u8]>,
    root_key_id: &str,
    status: &str,
    destroy_after: Option<Timestamp>,
) -> Result<()> {
    static UPDATE: Statement = Statement::new(
        c"UPDATE meshhook_secrets.kek_storage SET kek_encrypted = $2, root_key_id = $3, status = $4, destroy_after = $5, rotated_at = CASE WHEN status OPERATOR(pg_catalog.=) 'active' AND $4 OPERATOR(pg_catalog.<>) 'active' THEN pg_catalog.now() ELSE rotated_at END, retired_at = CASE WHEN $4 OPERATOR(pg_catalog.=) 'retired' THEN COALESCE(retired_at, pg_catalog.now()) WHEN $4 OPERATOR(pg_catalog.=) 'retiring' THEN NULL ELSE retired_at END, destroyed_at = CASE WHEN $4 OPERATOR(pg_catalog.=) 'destroyed' THEN pg_catalog.now() END WHERE kek_id OPERATOR(pg_catalog.=) $1",
        &[INT4OID, BYTEAOID, TEXTOID, TEXTOID, TIMESTAMPTZOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [
        parameter(kek_id),
        encrypted.and_then(parameter),
        parameter(root_key_id),
        parameter(status),
        destroy_after.map(Datum::from),
    ];
    change(|| UPDATE.change_one(&parameters))
}

/// Keeps a KEK from being retired until the transaction ends: whoever wraps with it holds this.
pub fn hold(kek_id: i32) -> Result<()> {
    static HOLD: Statement = Statement::new(
        c"SELECT FROM meshhook_secrets.kek_storage WHERE kek_id OPERATOR(pg_catalog.=) $1 FOR KEY SHARE",
        &[INT4OID],
    );
    lock(&HOLD, kek_id).map(|_| ())
}

/// Keeps everybody from the KEK until the transaction ends; false if somebody holds it. Never waits: a
/// transaction that holds it may be open for hours.
pub fn seize(kek_id: i32) -> Result<bool> {
    static SEIZE: Statement = Statement::new(
        c"SELECT FROM meshhook_secrets.kek_storage WHERE kek_id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED",
        &[INT4OID],
    );
    Ok(lock(&SEIZE, kek_id)? == 1)
}

fn lock(statement: &'static Statement, kek_id: i32) -> Result<usize> {
    let _owner = Acting::as_owner()?;
    statement.execute(May::WriteLatest, &[parameter(kek_id)])
}

fn stored(row: &Row) -> Result<StoredKek> {
    let time = |column| row.optional::<TimestampWithTimeZone>(column).map(i64::from);
    Ok(StoredKek {
        kek_id: row.required(1)?,
        encrypted: row.optional(2),
        root_key_id: row.required(3)?,
        status: row.required(4)?,
        created_at: time(5).ok_or_else(Error::corrupted)?,
        rotated_at: time(6),
        retired_at: time(7),
        destroy_after: time(8),
        destroyed_at: time(9),
    })
}
