//! `pg_stat_activity`: the text that other sessions see of a statement.

use super::statement;
use meshhook_secrets_core::redact::sql::{self, Also};
use pgrx::pg_sys;
use std::{
    cell::Cell,
    ffi::{CStr, CString, c_char},
};

// Undecorated: none of these raises an error, and they are called for every statement.
unsafe extern "C-unwind" {
    fn pgstat_report_activity(state: pg_sys::BackendState::Type, text: *const c_char);
}

thread_local! {
    /// The statement whose masked text is shown.
    static SHOWN: Cell<Option<statement::Id>> = const { Cell::new(None) };
}

/// Shows the client's statement masked, if it holds literals. Once for each message of the client:
/// PostgreSQL itself shows it again at each.
pub fn mask() {
    let Some(id) = statement::current() else { return };
    if SHOWN.replace(Some(id)) == Some(id) && id.is_reliable() {
        return;
    }
    // SAFETY: PostgreSQL keeps the statement's text as long as it is the current one.
    let text = unsafe { CStr::from_ptr(id.text) }.to_bytes();
    // Others see no more of it than this. A literal that is cut there is masked to the end.
    // SAFETY: a setting, fixed at the server's start.
    let size = usize::try_from(unsafe { pg_sys::pgstat_track_activity_query_size }).unwrap_or(0);
    let text = text.get(..size).unwrap_or(text);
    if !sql::has_strings(text) {
        return;
    }
    let masked = CString::new(sql::mask(text, Also::default()));
    let masked = masked.unwrap_or_else(|_| c"***".to_owned());
    // SAFETY: a C string that is copied; state of this backend.
    unsafe { show(&masked) }
}

/// # Safety
/// In a backend that is running a statement.
unsafe fn show(text: &CStr) {
    // SAFETY: the entry is this backend's own, in memory that lives as long as the server; its text
    // has pgstat_track_activity_query_size bytes, of which others read as far as the first NUL.
    unsafe {
        let entry = pg_sys::MyBEEntry;
        if entry.is_null() || (*entry).st_state != pg_sys::BackendState::STATE_RUNNING {
            return;
        }
        pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr());
        // Behind the masked text the end of the longer one would stay in shared memory.
        let size = pg_sys::pgstat_track_activity_query_size as usize;
        let shown = match (*entry).st_state {
            pg_sys::BackendState::STATE_RUNNING => text.to_bytes().len().min(size),
            _ => 0,
        };
        (*entry).st_activity_raw.add(shown).write_bytes(0, size - shown);
    }
}
