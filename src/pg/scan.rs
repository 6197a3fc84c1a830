//! Index scans of our own tables: no SQL, so nothing for a search_path, an operator or a policy of
//! somebody else to get hold of, and no switch of user.

use crate::error::{Error, Result};
use pgrx::{FromDatum, IntoDatum, pg_sys};
use std::{ffi::CString, ops::ControlFlow};

/// The schema of the extension.
const SCHEMA: &std::ffi::CStr = c"meshhook_secrets";

/// Which state of the table a scan sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// What the statement sees.
    Statement,
    /// What is committed by now, and this transaction's own changes.
    Latest,
}

/// A column's value to look for, by the column's number (from 1).
pub struct Key<'a> {
    column: i16,
    value: KeyValue<'a>,
}

enum KeyValue<'a> {
    Uuid(&'a [u8; 16]),
    Integer(i32),
    Text(&'a str),
}

impl<'a> Key<'a> {
    /// `column = uuid`.
    pub fn uuid(column: i16, value: &'a [u8; 16]) -> Self {
        Self { column, value: KeyValue::Uuid(value) }
    }

    /// `column = integer`.
    pub fn integer(column: i16, value: i32) -> Self {
        Self { column, value: KeyValue::Integer(value) }
    }

    /// `column = text`, byte by byte.
    pub fn text(column: i16, value: &'a str) -> Self {
        Self { column, value: KeyValue::Text(value) }
    }
}

/// A row found. Columns count from 1, as in the table.
pub struct Row {
    values: [pg_sys::Datum; COLUMNS],
    nulls: [bool; COLUMNS],
}

/// No table of ours is wider.
const COLUMNS: usize = 24;

impl Row {
    /// The column's value; `None` if it is NULL.
    pub fn optional<T: FromDatum>(&self, column: usize) -> Option<T> {
        // SAFETY: the store names columns with the types that our install script gives them; text
        // and bytea are detoasted by FromDatum.
        unsafe { T::from_datum(self.values[column - 1], self.nulls[column - 1]) }
    }

    /// The column's value; XX001 if it is NULL where the schema forbids it.
    pub fn required<T: FromDatum>(&self, column: usize) -> Result<T> {
        self.optional(column).ok_or_else(Error::corrupted)
    }
}

/// The id of a table or index of ours.
pub fn relation_id(name: &str) -> Result<pg_sys::Oid> {
    let Ok(name) = CString::new(name) else {
        return Err(Error::internal("A relation name holds NUL."));
    };
    // SAFETY: look-ups in the catalog caches.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(SCHEMA.as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    if oid == pg_sys::Oid::INVALID {
        return Err(Error::new("55000", "meshhook_secrets is not installed in this database")
            .hint("Run CREATE EXTENSION meshhook_secrets."));
    }
    Ok(oid)
}

/// Locks a table of ours against all other writers until the transaction ends.
pub fn lock_against_writers(table: &str) -> Result<()> {
    let table = relation_id(table)?;
    // SAFETY: an existing relation.
    unsafe {
        pg_sys::LockRelationOid(table, pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE);
    }
    Ok(())
}

/// Locks a table of ours as a statement that writes to it would.
pub fn lock_for_writing(table: &str) -> Result<()> {
    let table = relation_id(table)?;
    // SAFETY: an existing relation; an ERROR (lock_timeout) comes through pgrx's guard.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) };
    Ok(())
}

/// Locks a table against everybody until the transaction ends, if that is possible at once.
pub fn seize(table: pg_sys::Oid) -> bool {
    // SAFETY: a relation, or one that was just dropped.
    unsafe {
        pg_sys::ConditionalLockRelationOid(table, pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE)
    }
}

/// Calls `each` for the rows of `table` that match all `keys`, which must be a prefix of `index`;
/// with no index, for all rows.
pub fn rows<T>(
    table: &str,
    index: Option<&str>,
    sees: Sees,
    keys: &[Key<'_>],
    mut each: impl FnMut(&Row) -> Result<ControlFlow<T>>,
) -> Result<Option<T>> {
    let mut scan = Scan::begin(relation_id(table)?, index, sees, keys)?;
    while let Some(row) = scan.next()? {
        if let ControlFlow::Break(found) = each(&row)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

struct Scan {
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    scan: pg_sys::SysScanDesc,
}

impl Scan {
    fn begin(
        table: pg_sys::Oid,
        index: Option<&str>,
        sees: Sees,
        keys: &[Key<'_>],
    ) -> Result<Self> {
        // SAFETY: table_open holds an AccessShareLock until the end of the transaction; the scan
        // keys live in PostgreSQL's memory for as long as the scan; the snapshot is registered.
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            // Looked up under that lock, which keeps REINDEX CONCURRENTLY from dropping it.
            let index = index.map(relation_id).transpose()?;
            let snapshot = pg_sys::RegisterSnapshot(match sees {
                Sees::Statement => pg_sys::GetActiveSnapshot(),
                Sees::Latest => pg_sys::GetLatestSnapshot(),
            });
            let size = size_of::<pg_sys::ScanKeyData>();
            let entries: *mut pg_sys::ScanKeyData =
                pg_sys::palloc0(size * keys.len().max(1)).cast();
            for (position, key) in keys.iter().enumerate() {
                init_key(entries.add(position), key);
            }
            let scan = pg_sys::systable_beginscan(
                relation,
                index.unwrap_or(pg_sys::Oid::INVALID),
                index.is_some(),
                snapshot,
                keys.len() as i32,
                entries,
            );
            Ok(Self { relation, snapshot, scan })
        }
    }

    fn next(&mut self) -> Result<Option<Row>> {
        // SAFETY: the scan is open; the row's datums point into a buffer that stays pinned until the
        // next call. The width is checked before the arrays are filled.
        unsafe {
            let tuple = pg_sys::systable_getnext(self.scan);
            if tuple.is_null() {
                return Ok(None);
            }
            let descriptor = (*self.relation).rd_att;
            if (*descriptor).natts as usize > COLUMNS {
                return Err(Error::internal("A table is wider than expected."));
            }
            let mut row = Row { values: [pg_sys::Datum::null(); COLUMNS], nulls: [true; COLUMNS] };
            pg_sys::heap_deform_tuple(
                tuple,
                descriptor,
                row.values.as_mut_ptr(),
                row.nulls.as_mut_ptr(),
            );
            Ok(Some(row))
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        // SAFETY: what `begin` opened. The lock on the table stays until the transaction ends.
        unsafe {
            pg_sys::systable_endscan(self.scan);
            pg_sys::UnregisterSnapshot(self.snapshot);
            pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

/// # Safety
/// `entry` points to a zeroed scan key.
unsafe fn init_key(entry: *mut pg_sys::ScanKeyData, key: &Key<'_>) {
    let (function, argument) = match key.value {
        KeyValue::Uuid(value) => (pg_sys::F_UUID_EQ, Some(pg_sys::Datum::from(value.as_ptr()))),
        KeyValue::Integer(value) => (pg_sys::F_INT4EQ, value.into_datum()),
        KeyValue::Text(value) => (pg_sys::F_TEXTEQ, value.into_datum()),
    };
    // SAFETY: the functions are built in and take the argument's type; names have collation "C".
    unsafe {
        pg_sys::ScanKeyInit(
            entry,
            key.column,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::Oid::from(function),
            argument.unwrap_or(pg_sys::Datum::null()),
        );
        (*entry).sk_collation = pg_sys::C_COLLATION_OID;
    }
}
