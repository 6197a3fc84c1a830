//! `audit_keys`.

use super::guard::change;
use crate::{
    error::Result,
    pg::{
        scan::{self, Sees},
        spi::{May, Statement, parameter},
        user::Acting,
    },
};
use pgrx::pg_sys::{BYTEAOID, INT4OID, TEXTOID};
use std::ops::ControlFlow;

/// A row.
pub struct StoredAuditKey {
    pub key_version: i32,
    pub encrypted: Vec<u8>,
    pub root_key_id: String,
}

/// All audit keys. There are few.
pub fn all(sees: Sees) -> Result<Vec<StoredAuditKey>> {
    let mut keys = Vec::new();
    scan::rows("audit_keys", None, sees, &[], |row| {
        keys.push(StoredAuditKey {
            key_version: row.required(1)?,
            encrypted: row.required(2)?,
            root_key_id: row.required(3)?,
        });
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(keys)
}

/// Adds an audit key; false if there is one of this version.
pub fn insert(key_version: i32, encrypted: &[u8], root_key_id: &str) -> Result<bool> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.audit_keys (key_version, key_encrypted, root_key_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        &[INT4OID, BYTEAOID, TEXTOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [parameter(key_version), parameter(encrypted), parameter(root_key_id)];
    Ok(change(|| INSERT.execute(May::WriteLatest, &parameters))? == 1)
}

/// Gives an audit key another wrap.
pub fn replace(key_version: i32, encrypted: &[u8], root_key_id: &str) -> Result<()> {
    static UPDATE: Statement = Statement::new(
        c"UPDATE meshhook_secrets.audit_keys SET key_encrypted = $2, root_key_id = $3 WHERE key_version OPERATOR(pg_catalog.=) $1",
        &[INT4OID, BYTEAOID, TEXTOID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [parameter(key_version), parameter(encrypted), parameter(root_key_id)];
    change(|| UPDATE.change_one(&parameters))
}
