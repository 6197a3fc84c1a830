//! Settings that no caller has a hand in.

use super::raise::catch;
use crate::error::Result;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char, c_int};

unsafe extern "C-unwind" {
    fn set_config_option(
        name: *const c_char,
        value: *const c_char,
        context: pg_sys::GucContext::Type,
        source: pg_sys::GucSource::Type,
        action: pg_sys::GucAction::Type,
        change: bool,
        level: c_int,
        reload: bool,
    ) -> c_int;
}

/// While this lives, a setting is as it was pinned, as in a function with SET.
pub struct Pinned {
    level: c_int,
}

impl Pinned {
    /// Names and operators are looked up in `pg_catalog` alone (temporary objects come last). For statements
    /// that are prepared anew each time.
    pub fn search_path() -> Result<Self> {
        Self::pin(c"search_path", c"pg_catalog, pg_temp")
    }

    /// Tables are read through an index or by the place of a row, however small they are.
    pub fn no_seqscan() -> Result<Self> {
        Self::pin(c"enable_seqscan", c"off")
    }

    fn pin(setting: &'static CStr, value: &'static CStr) -> Result<Self> {
        // SAFETY: the level is ours, and is left on drop; if a statement fails, PostgreSQL leaves it
        // when it aborts the (sub)transaction. Only undecorated calls under `catch`.
        unsafe {
            let pinned = Self { level: pg_sys::NewGUCNestLevel() };
            catch(|| {
                set_config_option(
                    setting.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                )
            })?;
            Ok(pinned)
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: what `pin` entered.
        unsafe { pg_sys::AtEOXact_GUC(true, self.level) }
    }
}
