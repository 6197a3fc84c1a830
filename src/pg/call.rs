//! How PostgreSQL calls us: entry points, arguments, scalar and composite results.

use super::raise::Thrown;
use crate::error::{Error, Result};
use pgrx::{FromDatum, IntoDatum, pg_sys};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Declares SQL-callable functions: `name = path::to::function;` exports `name` (the symbol that
/// the SQL declares) and calls the function with a [`Call`].
#[macro_export]
macro_rules! sql_functions {
    ($($(#[$doc:meta])* $name:ident = $function:path;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by PostgreSQL only.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(
            fcinfo: ::pgrx::pg_sys::FunctionCallInfo,
        ) -> ::pgrx::pg_sys::Datum {
            // SAFETY: PostgreSQL calls with a valid fcinfo; this frame holds no destructor.
            unsafe { $crate::pg::call::enter(fcinfo, |call| $function(call)) }
        }
        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($name)))]
            extern "C" fn finfo() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
                &::pgrx::pg_sys::Pg_finfo_record { api_version: 1 }
            }
        };
    )* };
}

/// One call: its arguments and where its result goes.
#[derive(Clone, Copy)]
pub struct Call {
    pub(super) fcinfo: pg_sys::FunctionCallInfo,
}

/// A result on its way back; `None` is NULL.
pub type Answer = Result<Option<pg_sys::Datum>>;

/// Runs `function`, and turns what comes out of it, panics included, into PostgreSQL's terms.
///
/// # Safety
/// Called by PostgreSQL with a valid `fcinfo`, from a frame without destructors.
pub unsafe fn enter(
    fcinfo: pg_sys::FunctionCallInfo,
    function: impl FnOnce(Call) -> Answer,
) -> pg_sys::Datum {
    match run(fcinfo, function) {
        Ok(Some(datum)) => datum,
        Ok(None) => {
            // SAFETY: fcinfo is valid.
            unsafe { (*fcinfo).isnull = true };
            pg_sys::Datum::null()
        }
        // SAFETY: all destructors have run in `run`.
        Err(thrown) => unsafe { thrown.throw() },
    }
}

#[inline(never)]
fn run(
    fcinfo: pg_sys::FunctionCallInfo,
    function: impl FnOnce(Call) -> Answer,
) -> std::result::Result<Option<pg_sys::Datum>, Thrown> {
    match catch_unwind(AssertUnwindSafe(|| function(Call { fcinfo }))) {
        Ok(answer) => answer.map_err(Thrown::from),
        Err(payload) => Err(Thrown::from_panic(payload)),
    }
}

impl Call {
    /// The argument at `index`, as PostgreSQL has it; `None` if it is NULL.
    pub fn raw(&self, index: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the SQL declaration of the function has this argument (checked by the tests,
        // which call every function), so the array holds it.
        unsafe {
            let arguments = (*self.fcinfo).args.as_slice((*self.fcinfo).nargs as usize);
            arguments.get(index).filter(|argument| !argument.isnull).map(|argument| argument.value)
        }
    }

    /// The argument at `index`; `None` if it is NULL.
    pub fn optional<T: FromDatum>(&self, index: usize) -> Option<T> {
        // SAFETY: the SQL declaration gives the argument the type that `T` reads.
        self.raw(index).and_then(|datum| unsafe { T::from_datum(datum, false) })
    }

    /// The argument at `index`; 22004 if it is NULL.
    pub fn required<T: FromDatum>(&self, index: usize, name: &'static str) -> Result<T> {
        self.optional(index).ok_or_else(|| Error::null_argument(name))
    }

    /// The bytes that the argument at `index`, of a type of variable length, holds; 0 if it is NULL.
    pub fn size(&self, index: usize) -> usize {
        // SAFETY: the SQL declaration gives the argument such a type.
        self.raw(index).map_or(0, |datum| unsafe {
            pg_sys::toast_raw_datum_size(datum).saturating_sub(pg_sys::VARHDRSZ)
        })
    }

    /// A composite result of the function's declared type. The type must be a named composite.
    pub fn record(&self, columns: &[Option<pg_sys::Datum>]) -> Answer {
        let mut values: Vec<_> =
            columns.iter().map(|column| column.unwrap_or(pg_sys::Datum::null())).collect();
        let mut nulls: Vec<_> = columns.iter().map(Option::is_none).collect();
        // SAFETY: the descriptor is that of the declared result type; its width is checked before
        // the arrays are read.
        unsafe {
            let mut descriptor = std::ptr::null_mut();
            pg_sys::get_call_result_type(self.fcinfo, std::ptr::null_mut(), &mut descriptor);
            if descriptor.is_null() || (*descriptor).natts as usize != columns.len() {
                return Err(Error::internal("The result type does not fit the function."));
            }
            let descriptor = pg_sys::BlessTupleDesc(descriptor);
            let tuple =
                pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            Ok(Some(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)))
        }
    }
}

/// The memory that a result must live in.
pub struct Memory(pg_sys::MemoryContext);

impl Memory {
    /// The current memory context.
    pub fn current() -> Self {
        // SAFETY: reads backend state.
        Self(unsafe { pg_sys::CurrentMemoryContext })
    }

    /// Runs `f` with this as the current memory context.
    pub fn run<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        // SAFETY: the context outlives the call that it was taken in; the former one is put back,
        // except after an ERROR, where PostgreSQL chooses its own.
        unsafe {
            let former = pg_sys::MemoryContextSwitchTo(self.0);
            let result = f();
            pg_sys::MemoryContextSwitchTo(former);
            result
        }
    }
}

/// `value` as a result; `None` is NULL.
pub fn datum(value: impl IntoDatum) -> Option<pg_sys::Datum> {
    value.into_datum()
}
