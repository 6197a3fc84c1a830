//! `audit_seals`.

use super::{hash, required, time};
use crate::{
    error::{Error, Result},
    pg::{
        spi::{Found, May, Statement, parameter},
        user::Acting,
    },
    store::{Timestamp, guard::change},
};
use meshhook_secrets_core::audit::Seal;
use pgrx::pg_sys::{BYTEAOID, Datum, INT4OID, INT8OID, TIMESTAMPTZOID};

/// A seal and its MAC.
pub struct StoredSeal {
    pub seal: Seal,
    pub mac: Vec<u8>,
}

/// Adds a seal.
pub fn insert_seal(seal: &Seal, mac: &[u8]) -> Result<()> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.audit_seals (seal_id, previous_id, previous_mac, from_id, records, digest, month, key_version, ring_id, ring_position, sealed_at, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        &[
            INT8OID,
            INT8OID,
            BYTEAOID,
            INT8OID,
            INT4OID,
            BYTEAOID,
            TIMESTAMPTZOID,
            INT4OID,
            INT8OID,
            INT8OID,
            TIMESTAMPTZOID,
            BYTEAOID,
        ],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [
        parameter(seal.seal_id),
        parameter(seal.previous_id),
        parameter(seal.previous_mac.as_slice()),
        parameter(seal.from_id),
        parameter(seal.records),
        parameter(seal.digest.as_slice()),
        Some(Datum::from(seal.month)),
        parameter(seal.key_version),
        parameter(seal.ring.0),
        parameter(seal.ring.1),
        Some(Datum::from(seal.sealed_at)),
        parameter(mac),
    ];
    change(|| INSERT.change_one(&parameters))
}

/// Up to `limit` seals from `from` on and up to `to`, oldest first, as the statement sees them.
pub fn seals(from: i64, to: i64, limit: i64) -> Result<Vec<StoredSeal>> {
    static LIST: Statement = Statement::new(
        c"SELECT seal_id, previous_id, previous_mac, from_id, records, digest, month, key_version, ring_id, ring_position, sealed_at, mac FROM meshhook_secrets.audit_seals WHERE seal_id OPERATOR(pg_catalog.>=) $1 AND seal_id OPERATOR(pg_catalog.<=) $2 ORDER BY seal_id USING OPERATOR(pg_catalog.<) LIMIT $3",
        &[INT8OID, INT8OID, INT8OID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [parameter(from), parameter(to), parameter(limit)];
    LIST.run(May::Read, &parameters, |found| {
        (0..found.count()).map(|row| seal(found, row)).collect()
    })
}

/// The last seal, by the latest state.
pub fn last_seal() -> Result<Option<StoredSeal>> {
    static LAST: Statement = Statement::new(
        c"SELECT seal_id, previous_id, previous_mac, from_id, records, digest, month, key_version, ring_id, ring_position, sealed_at, mac FROM meshhook_secrets.audit_seals ORDER BY seal_id USING OPERATOR(pg_catalog.>) LIMIT 1",
        &[],
    );
    let _owner = Acting::as_owner()?;
    LAST.run(May::Write, &[], |found| match found.count() {
        0 => Ok(None),
        _ => seal(found, 0).map(Some),
    })
}

/// Removes the seals up to this one.
pub fn delete_seals(to: i64) -> Result<()> {
    static DELETE: Statement = Statement::new(
        c"DELETE FROM meshhook_secrets.audit_seals WHERE seal_id OPERATOR(pg_catalog.<=) $1",
        &[INT8OID],
    );
    let _owner = Acting::as_owner()?;
    change(|| DELETE.run(May::Write, &[parameter(to)], |_| Ok(())))
}

/// The last seal of the unbroken row of seals, from the oldest on, whose months end by `before`.
pub fn last_seal_before(before: Timestamp) -> Result<Option<StoredSeal>> {
    static LAST: Statement = Statement::new(
        c"SELECT seal_id, previous_id, previous_mac, from_id, records, digest, month, key_version, ring_id, ring_position, sealed_at, mac FROM meshhook_secrets.audit_seals WHERE seal_id OPERATOR(pg_catalog.<) COALESCE((SELECT pg_catalog.min(s.seal_id) FROM meshhook_secrets.audit_seals s WHERE s.month OPERATOR(pg_catalog.>=) $1), 9223372036854775807) ORDER BY seal_id USING OPERATOR(pg_catalog.>) LIMIT 1",
        &[TIMESTAMPTZOID],
    );
    let _owner = Acting::as_owner()?;
    LAST.run(May::Write, &[Some(Datum::from(before))], |found| match found.count() {
        0 => Ok(None),
        _ => seal(found, 0).map(Some),
    })
}

fn seal(found: &Found, row: usize) -> Result<StoredSeal> {
    Ok(StoredSeal {
        seal: Seal {
            seal_id: required(found, row, 1)?,
            previous_id: required(found, row, 2)?,
            previous_mac: hash(found, row, 3),
            from_id: required(found, row, 4)?,
            records: required(found, row, 5)?,
            digest: hash(found, row, 6),
            month: time(found, row, 7).ok_or_else(Error::corrupted)?,
            key_version: required(found, row, 8)?,
            ring: (required(found, row, 9)?, required(found, row, 10)?),
            sealed_at: time(found, row, 11).ok_or_else(Error::corrupted)?,
        },
        mac: required(found, row, 12)?,
    })
}
