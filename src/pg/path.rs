//! A search_path that no caller has a hand in.

use super::raise::catch;
use crate::error::Result;
use pgrx::pg_sys;
use std::ffi::{c_char, c_int};

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

/// While this lives, names and operators are looked up in `pg_catalog` alone (temporary objects come
/// last), as in a function with SET search_path. For statements that are prepared anew each time.
pub struct PinnedPath {
    level: c_int,
}

impl PinnedPath {
    /// Pins the search_path.
    pub fn pin() -> Result<Self> {
        // SAFETY: the level is ours, and is left on drop; if a statement fails, PostgreSQL leaves it
        // when it aborts the (sub)transaction. Only undecorated calls under `catch`.
        unsafe {
            let pinned = Self { level: pg_sys::NewGUCNestLevel() };
            catch(|| {
                set_config_option(
                    c"search_path".as_ptr(),
                    c"pg_catalog, pg_temp".as_ptr(),
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

impl Drop for PinnedPath {
    fn drop(&mut self) {
        // SAFETY: what `pin` entered.
        unsafe { pg_sys::AtEOXact_GUC(true, self.level) }
    }
}
