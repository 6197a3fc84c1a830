//! `audit_head`: one row, which every seal changes.
//!
//! While somebody holds a snapshot (a dump, for hours), its former states cannot be cleaned up, and whoever
//! looks for the row goes through all of them. So a process looks first where it saw the row last, and
//! changes it there. It is the only row of the table: whatever is seen at a place is the head.

use super::{hash, required, time};
use crate::{
    error::{Error, Result},
    pg::{
        pinned::Pinned,
        spi::{Found, May, Parameter, Statement, parameter},
        user::Acting,
    },
    store::guard::change,
};
use meshhook_secrets_core::audit::Head;
use pgrx::{
    itemptr::{item_pointer_to_u64, u64_to_item_pointer},
    pg_sys::{BYTEAOID, Datum, INT4OID, INT8OID, ItemPointerData, Oid, TIDOID, TIMESTAMPTZOID},
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where this process saw the row last; no row is at 0.
static PLACE: AtomicU64 = AtomicU64::new(0);

// Looked for in a range of one place: reading a range cleans its page up, so that the next state has room beside
// this one; fetching a single place does not.

/// The head and its MAC; `lock`: the latest one, which nobody else changes until the transaction ends.
pub fn head(lock: bool) -> Result<Option<(Head, Vec<u8>)>> {
    static LOCK: Statement = Statement::new(
        c"SELECT seal_id, seal_mac, anchor_id, anchor_mac, pruned_before, pruned_seal, server_event, key_version, mac, ctid FROM meshhook_secrets.audit_head FOR UPDATE",
        &[],
    );
    static READ: Statement = Statement::new(
        c"SELECT seal_id, seal_mac, anchor_id, anchor_mac, pruned_before, pruned_seal, server_event, key_version, mac, ctid FROM meshhook_secrets.audit_head",
        &[],
    );
    static LOCK_AT: Statement = Statement::new(
        c"SELECT seal_id, seal_mac, anchor_id, anchor_mac, pruned_before, pruned_seal, server_event, key_version, mac, ctid FROM meshhook_secrets.audit_head WHERE ctid OPERATOR(pg_catalog.>=) $1 AND ctid OPERATOR(pg_catalog.<=) $1 FOR UPDATE",
        &[TIDOID],
    );
    static READ_AT: Statement = Statement::new(
        c"SELECT seal_id, seal_mac, anchor_id, anchor_mac, pruned_before, pruned_seal, server_event, key_version, mac, ctid FROM meshhook_secrets.audit_head WHERE ctid OPERATOR(pg_catalog.>=) $1 AND ctid OPERATOR(pg_catalog.<=) $1",
        &[TIDOID],
    );
    let _owner = Acting::as_owner()?;
    let (anywhere, there, may) =
        if lock { (&LOCK, &LOCK_AT, May::Write) } else { (&READ, &READ_AT, May::Read) };
    let mut found = None;
    if let Some(place) = place() {
        let _by_place = Pinned::no_seqscan()?;
        found = there.run(may, &[place], read)?;
    }
    if found.is_none() {
        found = anywhere.run(may, &[], read)?;
    }
    // Whoever does not lock may see a former state, which is not the one to be changed.
    if lock {
        remember(found.as_ref().map(|(_, place)| *place));
    }
    Ok(found.map(|(head, _)| head))
}

type Placed = ((Head, Vec<u8>), ItemPointerData);

fn read(found: &Found) -> Result<Option<Placed>> {
    if found.count() == 0 {
        return Ok(None);
    }
    let head = Head {
        seal_id: required(found, 0, 1)?,
        seal_mac: hash(found, 0, 2),
        anchor_id: required(found, 0, 3)?,
        anchor_mac: hash(found, 0, 4),
        pruned_before: time(found, 0, 5),
        pruned_seal: required(found, 0, 6)?,
        server_event: time(found, 0, 7),
        key_version: required(found, 0, 8)?,
    };
    Ok(Some(((head, required(found, 0, 9)?), required(found, 0, 10)?)))
}

/// Writes the head that [`head`] locked, or the first one.
pub fn set_head(head: &Head, mac: &[u8]) -> Result<()> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.audit_head (seal_id, seal_mac, anchor_id, anchor_mac, pruned_before, pruned_seal, server_event, key_version, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING ctid",
        &TYPES,
    );
    static UPDATE: Statement = Statement::new(
        c"UPDATE meshhook_secrets.audit_head SET seal_id = $1, seal_mac = $2, anchor_id = $3, anchor_mac = $4, pruned_before = $5, pruned_seal = $6, server_event = $7, key_version = $8, mac = $9 WHERE ctid OPERATOR(pg_catalog.=) $10 RETURNING ctid",
        &TYPES_AT,
    );
    let _owner = Acting::as_owner()?;
    let mut parameters = vec![
        parameter(head.seal_id),
        parameter(head.seal_mac.as_slice()),
        parameter(head.anchor_id),
        parameter(head.anchor_mac.as_slice()),
        head.pruned_before.map(Datum::from),
        parameter(head.pruned_seal),
        head.server_event.map(Datum::from),
        parameter(head.key_version),
        parameter(mac),
    ];
    let statement = match place() {
        Some(place) => {
            parameters.push(place);
            &UPDATE
        }
        None => &INSERT,
    };
    let _by_place = Pinned::no_seqscan()?;
    let changed = change(|| {
        statement.run(May::WriteLatest, &parameters, |found| {
            remember(found.get(0, 1));
            Ok(found.count())
        })
    })?;
    if changed == 1 { Ok(()) } else { Err(Error::corrupted()) }
}

const TYPES: [Oid; 9] = [
    INT8OID,
    BYTEAOID,
    INT8OID,
    BYTEAOID,
    TIMESTAMPTZOID,
    INT8OID,
    TIMESTAMPTZOID,
    INT4OID,
    BYTEAOID,
];
const TYPES_AT: [Oid; 10] = [
    INT8OID,
    BYTEAOID,
    INT8OID,
    BYTEAOID,
    TIMESTAMPTZOID,
    INT8OID,
    TIMESTAMPTZOID,
    INT4OID,
    BYTEAOID,
    TIDOID,
];

/// The place as a parameter, if one is known.
fn place() -> Option<Parameter> {
    let known = PLACE.load(Ordering::Relaxed);
    (known != 0).then(|| {
        let mut place = ItemPointerData::default();
        u64_to_item_pointer(known, &mut place);
        parameter(place)
    })
}

fn remember(place: Option<ItemPointerData>) {
    PLACE.store(place.map_or(0, item_pointer_to_u64), Ordering::Relaxed);
}
