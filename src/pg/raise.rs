//! Errors across the boundary, in both directions and without loss.

use crate::error::{Error, Refusal, Result};
use cee_scape::{SigJmpBufFields, call_with_sigsetjmp};
use pgrx::{PgLogLevel, pg_sys};
use std::{
    any::Any,
    cell::Cell,
    ffi::{c_char, c_int},
    mem::MaybeUninit,
};

// PostgreSQL's own functions, undecorated: pgrx's wrappers turn an ERROR into a Rust panic and lose
// half of it on the way. They may only be called where a longjmp crosses no destructor.
unsafe extern "C-unwind" {
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(sqlstate: c_int) -> c_int;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
    fn errhidestmt(hide: bool) -> c_int;
    fn errhidecontext(hide: bool) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FlushErrorState();
    fn ReThrowError(error: *mut pg_sys::ErrorData) -> !;
}

/// An error that PostgreSQL raised and [`catch`] caught, whole. The transaction is broken: it can
/// only be raised again.
pub struct PgError(*mut pg_sys::ErrorData);

/// Runs `f`; an ERROR raised in it comes back as a value.
///
/// # Safety
/// `f` may only call undecorated C functions, and hold nothing with a destructor: an ERROR jumps
/// out of the middle of it.
pub unsafe fn catch<T>(f: impl FnOnce() -> T) -> Result<T> {
    // SAFETY: single-threaded backend; this is PG_TRY/PG_CATCH of PostgreSQL's elog.h, written out.
    // Everything the handler reads was set before the jump buffer was.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let exceptions = pg_sys::PG_exception_stack;
        let callbacks = pg_sys::error_context_stack;
        let mut result = MaybeUninit::<T>::uninit();
        let jumped = call_with_sigsetjmp(false, |buffer| {
            pg_sys::PG_exception_stack = (buffer as *const SigJmpBufFields).cast_mut().cast();
            result.write(f());
            0
        });
        pg_sys::PG_exception_stack = exceptions;
        pg_sys::error_context_stack = callbacks;
        if jumped == 0 {
            return Ok(result.assume_init());
        }
        pg_sys::CurrentMemoryContext = context;
        let error = CopyErrorData();
        FlushErrorState();
        Err(Error::Postgres(PgError(error)))
    }
}

/// An error ready to be thrown: plain pointers into PostgreSQL's memory, nothing to destroy.
#[derive(Clone, Copy)]
pub enum Thrown {
    /// Build it anew.
    New {
        /// Encoded SQLSTATE.
        state: c_int,
        /// Message, DETAIL and HINT; the latter two may be null.
        texts: [*const c_char; 3],
    },
    /// One of PostgreSQL's, caught earlier.
    Again(*mut pg_sys::ErrorData),
}

impl From<Error> for Thrown {
    fn from(error: Error) -> Self {
        match error {
            Error::Postgres(PgError(error)) => Thrown::Again(error),
            Error::Refused(refusal) => {
                let Refusal { state, message, detail, hint } = *refusal;
                Thrown::new(encode(state), message, detail.as_deref(), hint.as_deref())
            }
        }
    }
}

impl PgError {
    /// Its SQLSTATE.
    pub fn sqlstate(&self) -> String {
        // SAFETY: a copy of PostgreSQL's error, which lives until it is raised again.
        decode(unsafe { (*self.0).sqlerrcode })
    }
}

/// The SQLSTATE of a panic that [`Thrown::from_panic`] turns into an error.
pub fn sqlstate_of_panic(payload: &(dyn Any + Send)) -> String {
    use pg_sys::panic::CaughtError;
    match payload.downcast_ref::<CaughtError>() {
        Some(CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)) => {
            decode(report.sql_error_code() as c_int)
        }
        _ => String::from("XX000"),
    }
}

impl Thrown {
    fn new(state: c_int, message: &str, detail: Option<&str>, hint: Option<&str>) -> Self {
        let copy = |text: Option<&str>| text.map_or(std::ptr::null(), c_string);
        Thrown::New { state, texts: [copy(Some(message)), copy(detail), copy(hint)] }
    }

    /// From the payload of a panic: an ERROR that a pgrx binding turned into one, or a defect of
    /// ours, whose text stays here because nobody can vouch for what it holds.
    pub fn from_panic(payload: Box<dyn Any + Send>) -> Self {
        use pg_sys::panic::CaughtError;
        match payload.downcast::<CaughtError>() {
            Ok(caught) => match *caught {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                    Thrown::new(
                        report.sql_error_code() as c_int,
                        report.message(),
                        report.detail(),
                        report.hint(),
                    )
                }
                CaughtError::RustPanic { .. } => Error::internal(panic_place()).into(),
            },
            Err(_) => Error::internal(panic_place()).into(),
        }
    }

    /// Raises it. Never returns.
    ///
    /// # Safety
    /// No frame between here and PostgreSQL may hold anything with a destructor.
    pub unsafe fn throw(self) -> ! {
        // SAFETY: see above; the texts live in PostgreSQL's memory, and errfinish() of an ERROR
        // does not return. "%s" keeps the texts from being read as formats.
        unsafe {
            match self {
                Thrown::Again(error) => ReThrowError(error),
                Thrown::New { state, texts: [message, detail, hint] } => {
                    errstart(PgLogLevel::ERROR as c_int, std::ptr::null());
                    errcode(state);
                    errmsg(c"%s".as_ptr(), message);
                    if !detail.is_null() {
                        errdetail(c"%s".as_ptr(), detail);
                    }
                    if !hint.is_null() {
                        errhint(c"%s".as_ptr(), hint);
                    }
                    errfinish(c"meshhook_secrets".as_ptr(), 0, std::ptr::null());
                    std::process::abort()
                }
            }
        }
    }
}

/// A log line of the server with a SQLSTATE-less level (LOG or WARNING), never an ERROR.
pub fn log(level: PgLogLevel, message: &str, hint: Option<&str>) {
    debug_assert!(level < PgLogLevel::ERROR);
    let message = c_string(message);
    let hint = hint.map_or(std::ptr::null(), c_string);
    // SAFETY: a level below ERROR returns; PostgreSQL has copied the texts, and workers that log outside of a
    // transaction have no memory that is reset.
    unsafe {
        if errstart(level as c_int, std::ptr::null()) {
            errmsg(c"%s".as_ptr(), message);
            if !hint.is_null() {
                errhint(c"%s".as_ptr(), hint);
            }
            errfinish(c"meshhook_secrets".as_ptr(), 0, std::ptr::null());
        }
        for text in [message, hint].into_iter().filter(|text| !text.is_null()) {
            pg_sys::pfree(text.cast_mut().cast());
        }
    }
}

/// A line of the server log, and of it alone; false if the server's settings suppress it.
pub fn log_for_sure(message: &str) -> bool {
    let message = c_string(message);
    // SAFETY: as in `log`.
    unsafe {
        let logged = errstart(pg_sys::LOG_SERVER_ONLY as c_int, std::ptr::null());
        if logged {
            errmsg(c"%s".as_ptr(), message);
            errhidestmt(true);
            errhidecontext(true);
            errfinish(c"meshhook_secrets".as_ptr(), 0, std::ptr::null());
        }
        pg_sys::pfree(message.cast_mut().cast());
        logged
    }
}

/// A copy of `text` in PostgreSQL's memory, cut at a NUL byte if it has one.
pub fn c_string(text: &str) -> *const c_char {
    let text = text.split('\0').next().unwrap_or_default();
    // SAFETY: one byte more than the text was allocated.
    unsafe {
        let copy: *mut u8 = pg_sys::palloc(text.len() + 1).cast();
        std::ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
        *copy.add(text.len()) = 0;
        copy.cast::<c_char>()
    }
}

/// MAKE_SQLSTATE of PostgreSQL's elog.h.
fn encode(state: &str) -> c_int {
    let sixbit = |byte: u8| c_int::from(byte.wrapping_sub(b'0')) & 0x3f;
    state.bytes().rev().fold(0, |code, byte| code << 6 | sixbit(byte))
}

/// The reverse of [`encode`].
fn decode(code: c_int) -> String {
    (0..5).map(|place| char::from(b'0' + ((code >> (6 * place)) & 0x3f) as u8)).collect()
}

thread_local! {
    static PANIC_PLACE: Cell<Option<(&'static str, u32)>> = const { Cell::new(None) };
}

/// Keeps the place of a panic, and nothing else of it: the default hook would print its text to the
/// server log.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC_PLACE.set(info.location().map(|at| {
            // SAFETY: file names of locations are literals of the program.
            (unsafe { &*std::ptr::from_ref(at.file()) }, at.line())
        }));
    }));
}

fn panic_place() -> String {
    match PANIC_PLACE.take() {
        Some((file, line)) => format!("A defect at {file}:{line}."),
        None => String::from("A defect at an unknown place."),
    }
}
