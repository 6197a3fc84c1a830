//! Who is at the other end, and what the session claims about the request that it serves.

use super::server;
use pgrx::{direct_function_call, pg_sys};
use serde_json::Value;
use std::{
    cell::{Cell, OnceCell, RefCell},
    ffi::{CStr, c_char},
};

thread_local! {
    static SYSTEM: Cell<bool> = const { Cell::new(false) };
    static CLAIMS: RefCell<Parsed> = const { RefCell::new(Parsed::EMPTY) };
    static HEADERS: RefCell<Parsed> = const { RefCell::new(Parsed::EMPTY) };
}

/// A JSON setting, parsed once for as long as it stays the same.
struct Parsed {
    text: String,
    value: Value,
}

impl Parsed {
    const EMPTY: Parsed = Parsed { text: String::new(), value: Value::Null };

    fn field(&mut self, text: Option<String>, name: &str) -> Option<String> {
        let text = text?;
        if self.text != text {
            self.value = serde_json::from_str(&text).unwrap_or_default();
            self.text = text;
        }
        match self.value.get(name) {
            Some(Value::String(value))
                if value.len() <= 200 && !value.chars().any(char::is_control) =>
            {
                Some(value.clone())
            }
            _ => None,
        }
    }
}

/// This process works for the system, for nobody in particular.
pub fn be_system() {
    SYSTEM.set(true);
}

/// The user who connected, or `system`. Asks no catalog, so that it can be asked while a transaction
/// fails.
pub fn actor() -> String {
    if SYSTEM.get() {
        return String::from("system");
    }
    server::setting(c"session_authorization").unwrap_or_default()
}

/// Whether this process works for the system.
pub fn is_system() -> bool {
    SYSTEM.get()
}

/// Where the connection came from; `None` for a Unix socket and in background workers.
pub fn client_address() -> Option<String> {
    thread_local! {
        static ADDRESS: OnceCell<Option<String>> = const { OnceCell::new() };
    }
    // SAFETY: a function without arguments, which asks only the connection itself.
    let ask = || unsafe {
        let address = direct_function_call::<pgrx::datum::Inet>(pg_sys::inet_client_addr, &[]);
        address.map(|address| address.0)
    };
    ADDRESS.with(|known| known.get_or_init(ask).clone())
}

/// What the client calls itself.
pub fn application_name() -> Option<String> {
    // SAFETY: a setting's value, copied at once.
    unsafe { text(pg_sys::application_name) }
}

/// A claim of the JWT that PostgREST puts into the session. Any SQL session can set it: it is a claim.
pub fn claim(name: &str) -> Option<String> {
    CLAIMS.with_borrow_mut(|claims| claims.field(server::setting(c"request.jwt.claims"), name))
}

/// The request's id, from the headers that PostgREST puts into the session.
pub fn request_id() -> Option<String> {
    let headers = server::setting(c"request.headers");
    HEADERS.with_borrow_mut(|parsed| parsed.field(headers, "x-request-id"))
}

/// The transaction's id, if it has one.
pub fn transaction_id() -> Option<i64> {
    // SAFETY: reads backend state.
    let id = unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value;
    i64::try_from(id).ok().filter(|id| *id > 0)
}

/// # Safety
/// Null or a C string.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: see above.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}
