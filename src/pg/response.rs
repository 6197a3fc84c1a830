//! The answer to an HTTP request that PostgREST serves in this transaction.

use super::server;
use pgrx::pg_sys;
use std::ffi::CString;

/// RFC 9111, section 5.2.2.5: no cache may keep any part of the answer.
const NO_STORE: &str = r#"{"Cache-Control": "no-store"}"#;

/// Has PostgREST add `Cache-Control: no-store` to its answer. Does nothing in other sessions.
///
/// PostgREST says that it is there by `request.method`, and takes headers from `response.headers`, a
/// JSON array of objects with one key each, at the end of the transaction. What the host's own code
/// has put there stays; if that is no array, PostgREST refuses the whole answer.
pub fn forbid_caching() {
    if server::setting(c"request.method").is_none() {
        return;
    }
    let headers = match server::setting(c"response.headers") {
        None => format!("[{NO_STORE}]"),
        Some(present) if present.contains(NO_STORE) => return,
        Some(present) => match present.trim_end().strip_suffix(']').map(str::trim_end) {
            Some(list) if list.trim_start() == "[" => format!("[{NO_STORE}]"),
            Some(list) => format!("{list}, {NO_STORE}]"),
            None => return,
        },
    };
    let Ok(headers) = CString::new(headers) else {
        return;
    };
    // SAFETY: as `set_config(name, value, is_local => true)` does it: name and value are C strings,
    // which PostgreSQL copies. An ERROR, if it cannot, is raised through pgrx's guard.
    unsafe {
        pg_sys::set_config_option(
            c"response.headers".as_ptr(),
            headers.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}
