//! SQL through kept plans.
//!
//! A statement is prepared once per backend and replanned by PostgreSQL itself when tables, the
//! search_path or, where row-level security has a say, the role change.

use super::raise::catch;
use crate::error::{Error, Result};
use pgrx::{FromDatum, IntoDatum, pg_sys};
use std::{
    ffi::{CStr, c_char, c_int, c_long},
    sync::atomic::{AtomicPtr, Ordering},
};

// Undecorated, for use under `catch` only.
unsafe extern "C-unwind" {
    fn SPI_connect() -> c_int;
    fn SPI_finish() -> c_int;
    fn SPI_prepare(sql: *const c_char, count: c_int, types: *mut pg_sys::Oid)
    -> pg_sys::SPIPlanPtr;
    fn SPI_keepplan(plan: pg_sys::SPIPlanPtr) -> c_int;
    fn SPI_execute_plan(
        plan: pg_sys::SPIPlanPtr,
        values: *mut pg_sys::Datum,
        nulls: *const c_char,
        read_only: bool,
        count: c_long,
    ) -> c_int;
    fn SPI_execute_snapshot(
        plan: pg_sys::SPIPlanPtr,
        values: *mut pg_sys::Datum,
        nulls: *const c_char,
        snapshot: pg_sys::Snapshot,
        crosscheck: pg_sys::Snapshot,
        read_only: bool,
        fire_triggers: bool,
        count: c_long,
    ) -> c_int;
    fn GetLatestSnapshot() -> pg_sys::Snapshot;
    fn GetTransactionSnapshot() -> pg_sys::Snapshot;
}

/// What a statement may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// Read only, with the snapshot of the calling statement; assigns no transaction id.
    Read,
    /// Write, with a snapshot of its own.
    Write,
    /// Write to the latest state, even if the transaction has a fixed snapshot: a row that such a
    /// transaction cannot see raises 40001 instead of being left over (as PostgreSQL's own
    /// referential integrity does it).
    WriteLatest,
}

/// Statements that only read ([`May::Read`]) see one and the same latest state while this lives.
pub struct LatestState(());

impl LatestState {
    /// From now on.
    pub fn begin() -> Self {
        // SAFETY: pairs with the pop on drop; if a statement fails, PostgreSQL drops all snapshots when it
        // aborts the (sub)transaction.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        Self(())
    }
}

impl Drop for LatestState {
    fn drop(&mut self) {
        // SAFETY: see `begin`.
        unsafe { pg_sys::PopActiveSnapshot() }
    }
}

/// A statement of ours and the types of its parameters.
pub struct Statement {
    sql: &'static CStr,
    types: &'static [pg_sys::Oid],
    plan: AtomicPtr<pg_sys::_SPI_plan>,
}

/// A parameter; `None` is NULL.
pub type Parameter = Option<pg_sys::Datum>;

/// A parameter of type uuid. Borrows: the bytes must outlive the call.
pub fn uuid(bytes: &[u8; 16]) -> Parameter {
    Some(pg_sys::Datum::from(bytes.as_ptr()))
}

/// A parameter of a type that pgrx knows.
pub fn parameter(value: impl IntoDatum) -> Parameter {
    value.into_datum()
}

impl Statement {
    /// A statement; prepared at its first use.
    pub const fn new(sql: &'static CStr, types: &'static [pg_sys::Oid]) -> Self {
        Self { sql, types, plan: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Runs the statement and hands its rows to `read`, which must copy what it needs.
    pub fn run<T>(
        &'static self,
        may: May,
        parameters: &[Parameter],
        read: impl FnOnce(&Found) -> Result<T>,
    ) -> Result<T> {
        run(self.sql, self.types, &self.plan, may, parameters, read)
    }

    /// Runs the statement for its effect; the number of rows, which matters.
    #[must_use = "a statement that changed nothing has failed"]
    pub fn execute(&'static self, may: May, parameters: &[Parameter]) -> Result<usize> {
        self.run(may, parameters, |found| Ok(found.count()))
    }

    /// Runs a statement that must change exactly one row of the latest state.
    pub fn change_one(&'static self, parameters: &[Parameter]) -> Result<()> {
        match self.execute(May::WriteLatest, parameters)? {
            1 => Ok(()),
            _ => Err(Error::corrupted()),
        }
    }
}

/// A statement whose text is made at run time (names of the host's objects); keep it as long as the
/// text stays the same.
pub struct MadeStatement {
    sql: std::ffi::CString,
    types: &'static [pg_sys::Oid],
    plan: AtomicPtr<pg_sys::_SPI_plan>,
}

impl MadeStatement {
    /// A statement; prepared at its first use.
    pub fn new(sql: String, types: &'static [pg_sys::Oid]) -> Result<Self> {
        let sql = std::ffi::CString::new(sql).map_err(|_| Error::internal("SQL holds NUL."))?;
        Ok(Self { sql, types, plan: AtomicPtr::new(std::ptr::null_mut()) })
    }

    /// As [`Statement::run`].
    pub fn run<T>(
        &self,
        may: May,
        parameters: &[Parameter],
        read: impl FnOnce(&Found) -> Result<T>,
    ) -> Result<T> {
        run(&self.sql, self.types, &self.plan, may, parameters, read)
    }
}

impl Drop for MadeStatement {
    fn drop(&mut self) {
        let plan = self.plan.load(Ordering::Relaxed);
        if !plan.is_null() {
            // SAFETY: a kept plan of ours that nobody else knows.
            unsafe { pg_sys::SPI_freeplan(plan) };
        }
    }
}

fn run<T>(
    sql: &CStr,
    types: &'static [pg_sys::Oid],
    kept: &AtomicPtr<pg_sys::_SPI_plan>,
    may: May,
    parameters: &[Parameter],
    read: impl FnOnce(&Found) -> Result<T>,
) -> Result<T> {
    debug_assert_eq!(types.len(), parameters.len());
    let mut values = [pg_sys::Datum::null(); PARAMETERS];
    let mut nulls = [b'n' as c_char; PARAMETERS];
    for (position, value) in parameters.iter().enumerate().take(PARAMETERS) {
        if let Some(value) = value {
            values[position] = *value;
            nulls[position] = b' ' as c_char;
        }
    }
    // SAFETY: only undecorated calls and plain data inside. If one raises, the (sub)transaction is
    // going to abort, and PostgreSQL closes the SPI connection then. The arrays are as long as the
    // statement's parameters; the types are those it is prepared with.
    let found = unsafe {
        let mut plan = kept.load(Ordering::Relaxed);
        if plan.is_null() {
            let count = types.len() as c_int;
            plan = catch(|| {
                SPI_connect();
                let plan = SPI_prepare(sql.as_ptr(), count, types.as_ptr().cast_mut());
                SPI_keepplan(plan);
                SPI_finish();
                plan
            })?;
            kept.store(plan, Ordering::Relaxed);
        }
        let fixed = may == May::WriteLatest && super::server::snapshot_is_fixed();
        let (values, nulls) = (values.as_mut_ptr(), nulls.as_ptr());
        catch(|| {
            SPI_connect();
            let code = if fixed {
                let (latest, own) = (GetLatestSnapshot(), GetTransactionSnapshot());
                SPI_execute_snapshot(plan, values, nulls, latest, own, false, true, 0)
            } else {
                SPI_execute_plan(plan, values, nulls, may == May::Read, 0)
            };
            let count = pg_sys::SPI_processed as usize;
            Found { code, table: pg_sys::SPI_tuptable, count }
        })?
    };
    let result = if found.code < 0 {
        Err(Error::internal("A statement of ours was refused by SPI."))
    } else {
        read(&found)
    };
    if matches!(result, Err(Error::Postgres(_))) {
        // As above: PostgreSQL closes the connection when it aborts.
        return result;
    }
    // SAFETY: closes what was opened above.
    unsafe { catch(|| SPI_finish())? };
    result
}

/// No statement of ours has more parameters.
const PARAMETERS: usize = 24;

/// The rows that a statement gave. Columns count from 1.
pub struct Found {
    code: c_int,
    table: *mut pg_sys::SPITupleTable,
    count: usize,
}

impl Found {
    /// How many rows were found or changed.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The value at `row` (from 0) and `column` as PostgreSQL has it; `None` if NULL or not there.
    pub fn raw(&self, row: usize, column: i32) -> Option<pg_sys::Datum> {
        if self.table.is_null() || row >= self.count {
            return None;
        }
        let mut null = true;
        // SAFETY: the row exists; SPI_getbinval checks the column.
        let datum = unsafe {
            let tuple = *(*self.table).vals.add(row);
            pg_sys::SPI_getbinval(tuple, (*self.table).tupdesc, column, &mut null)
        };
        (!null).then_some(datum)
    }

    /// The value at `row` (from 0) and `column`, copied; `None` if NULL or not there.
    pub fn get<T: FromDatum>(&self, row: usize, column: i32) -> Option<T> {
        // SAFETY: the statement gives the column the type that `T` reads.
        self.raw(row, column).and_then(|datum| unsafe { T::from_datum(datum, false) })
    }

    /// The type of a column.
    pub fn type_of(&self, column: i32) -> pg_sys::Oid {
        if self.table.is_null() {
            return pg_sys::Oid::INVALID;
        }
        // SAFETY: a non-null table has a descriptor; SPI_gettypeid checks the column.
        unsafe { pg_sys::SPI_gettypeid((*self.table).tupdesc, column) }
    }

    /// The number of columns.
    pub fn width(&self) -> i32 {
        // SAFETY: a non-null table has a descriptor.
        if self.table.is_null() { 0 } else { unsafe { (*(*self.table).tupdesc).natts } }
    }
}
