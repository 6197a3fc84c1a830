//! `kek_storage`.

use super::guard::change;
use crate::{
    error::Result,
    pg::{
        scan::{self, Key, Row, Sees},
        spi::{Statement, parameter},
        user::Acting,
    },
};
use pgrx::pg_sys::{BYTEAOID, INT4OID, TEXTOID};
use std::ops::ControlFlow;

/// A row.
pub struct StoredKek {
    pub kek_id: i32,
    /// `None` once destroyed.
    pub encrypted: Option<Vec<u8>>,
    pub root_key_id: String,
    pub status: String,
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

/// Adds an active KEK.
pub fn insert_active(kek_id: i32, encrypted: &[u8], root_key_id: &str) -> Result<()> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.kek_storage (kek_id, kek_encrypted, root_key_id, status) VALUES ($1, $2, $3, 'active')",
        &[INT4OID, BYTEAOID, TEXTOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [parameter(kek_id), parameter(encrypted), parameter(root_key_id)];
    change(|| INSERT.change_one(&parameters))
}

fn stored(row: &Row) -> Result<StoredKek> {
    Ok(StoredKek {
        kek_id: row.required(1)?,
        encrypted: row.optional(2),
        root_key_id: row.required(3)?,
        status: row.required(4)?,
    })
}
