//! `audit_pending`: records that wait for a seal.

use super::required;
use crate::{
    error::Result,
    pg::{
        spi::{May, Statement, parameter},
        user::Acting,
    },
    store::guard::change,
};
use pgrx::pg_sys::{BYTEAOID, INT8OID};

/// Adds a record in the running transaction; `ring`: where in the ring it came from.
pub fn insert_pending(record: &[u8], ring: Option<(i64, i64)>) -> Result<()> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.audit_pending (record, ring_id, ring_position) VALUES ($1, $2, $3)",
        &[BYTEAOID, INT8OID, INT8OID],
    );
    let _owner = Acting::as_owner()?;
    let (id, position) = ring.unzip();
    change(|| {
        INSERT.change_one(&[
            parameter(record),
            id.and_then(parameter),
            position.and_then(parameter),
        ])
    })
}

/// A record that waited for a seal.
pub struct Pending {
    pub record: Vec<u8>,
    /// It came through the ring, while the server was sealed.
    pub from_ring: bool,
}

/// Takes up to `limit` records that wait. Those of open transactions are not seen.
pub fn take_pending(limit: i64) -> Result<Vec<Pending>> {
    static TAKE: Statement = Statement::new(
        c"DELETE FROM meshhook_secrets.audit_pending WHERE pending_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT p.pending_id FROM meshhook_secrets.audit_pending p LIMIT $1)) RETURNING record, ring_id IS NOT NULL",
        &[INT8OID],
    );
    let _owner = Acting::as_owner()?;
    change(|| {
        TAKE.run(May::Write, &[parameter(limit)], |found| {
            let read = |row| {
                let from_ring = required(found, row, 2)?;
                Ok(Pending { record: required(found, row, 1)?, from_ring })
            };
            (0..found.count()).map(read).collect()
        })
    })
}

/// The records that wait, in the state that the statement sees.
pub fn pending() -> Result<Vec<Vec<u8>>> {
    static LIST: Statement =
        Statement::new(c"SELECT record FROM meshhook_secrets.audit_pending LIMIT 10000", &[]);
    let _owner = Acting::as_owner()?;
    LIST.run(May::Read, &[], |found| {
        (0..found.count()).map(|row| required(found, row, 1)).collect()
    })
}

/// How many records wait, as the statement sees it.
pub fn count_pending() -> Result<i64> {
    static COUNT: Statement =
        Statement::new(c"SELECT pg_catalog.count(*) FROM meshhook_secrets.audit_pending", &[]);
    let _owner = Acting::as_owner()?;
    COUNT.run(May::Read, &[], |found| Ok(found.get(0, 1).unwrap_or(0)))
}

/// Whether any records wait, by the latest state.
pub fn has_pending() -> Result<bool> {
    static FOUND: Statement =
        Statement::new(c"SELECT EXISTS (SELECT FROM meshhook_secrets.audit_pending)", &[]);
    let _owner = Acting::as_owner()?;
    FOUND.run(May::Write, &[], |found| Ok(found.get(0, 1).unwrap_or(false)))
}

/// Whether records wait that came through the ring: they could not be sealed.
pub fn is_set_aside() -> Result<bool> {
    static FOUND: Statement = Statement::new(
        c"SELECT EXISTS (SELECT FROM meshhook_secrets.audit_pending WHERE ring_id IS NOT NULL)",
        &[],
    );
    let _owner = Acting::as_owner()?;
    FOUND.run(May::Read, &[], |found| Ok(found.get(0, 1).unwrap_or(false)))
}

/// Up to where the records of a ring are in the tables: as long as it is in use, the last seal is of it.
pub fn ring_position(ring_id: i64) -> Result<i64> {
    static LAST: Statement = Statement::new(
        c"SELECT GREATEST((SELECT s.ring_position FROM (SELECT l.ring_id, l.ring_position FROM meshhook_secrets.audit_seals l ORDER BY l.seal_id USING OPERATOR(pg_catalog.>) LIMIT 1) s WHERE s.ring_id OPERATOR(pg_catalog.=) $1), (SELECT pg_catalog.max(p.ring_position) FROM meshhook_secrets.audit_pending p WHERE p.ring_id OPERATOR(pg_catalog.=) $1))",
        &[INT8OID],
    );
    let _owner = Acting::as_owner()?;
    LAST.run(May::Write, &[parameter(ring_id)], |found| Ok(found.get(0, 1).unwrap_or(0)))
}
