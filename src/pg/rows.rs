//! Result sets of `RETURNS TABLE` functions.

use super::call::{Answer, Call};
use crate::error::{Error, Result};
use pgrx::pg_sys;

/// The rows of one answer.
///
/// They are kept in a store of our own making whose memory limit is out of reach: PostgreSQL would
/// make one of `work_mem`, and beyond that write revealed values to a temporary file.
pub struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
}

impl Rows {
    /// Prepares the answer of `call`.
    pub fn begin(call: &Call) -> Result<Self> {
        // SAFETY: `resultinfo` is null or a node; its tag tells whether it is a ReturnSetInfo. Store
        // and descriptor must live as long as the query, hence the switch of context.
        unsafe {
            let result = (*call.fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let allowed = !result.is_null()
                && (*result.cast::<pg_sys::Node>()).type_ == pg_sys::NodeTag::T_ReturnSetInfo
                && (*result).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize as i32
                    != 0;
            if !allowed {
                return Err(Error::new("0A000", "function returns rows")
                    .hint("Call it as SELECT * FROM the_function(...)."));
            }
            let context =
                pg_sys::MemoryContextSwitchTo((*(*result).econtext).ecxt_per_query_memory);
            let mut descriptor = std::ptr::null_mut();
            pg_sys::get_call_result_type(call.fcinfo, std::ptr::null_mut(), &mut descriptor);
            let random = (*result).allowedModes
                & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random as i32
                != 0;
            let store = pg_sys::tuplestore_begin_heap(random, false, i32::MAX / 2);
            (*result).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            (*result).setResult = store;
            (*result).setDesc = descriptor;
            pg_sys::MemoryContextSwitchTo(context);
            if descriptor.is_null() {
                return Err(Error::internal("The function has no result columns."));
            }
            Ok(Self { store, descriptor })
        }
    }

    /// Adds a row.
    pub fn push(&mut self, columns: &[Option<pg_sys::Datum>]) -> Result<()> {
        let mut values: Vec<_> =
            columns.iter().map(|column| column.unwrap_or(pg_sys::Datum::null())).collect();
        let mut nulls: Vec<_> = columns.iter().map(Option::is_none).collect();
        // SAFETY: the width is checked before the arrays are read.
        unsafe {
            if (*self.descriptor).natts as usize != columns.len() {
                return Err(Error::internal("The row does not fit the function."));
            }
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
        Ok(())
    }

    /// The answer of the function: the rows are already where PostgreSQL looks for them.
    pub fn done(self) -> Answer {
        Ok(None)
    }
}
