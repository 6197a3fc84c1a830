//! The server log gets a masked line, the client the error as it is.
//!
//! PostgreSQL calls the hook with the error that it is about to log and to send to the client. The
//! hook puts masked texts into it, has PostgreSQL log that and send nothing (the hook is called for
//! that too, and knows by a mark in the error), puts everything back, and has the outer call send
//! to the client only. So the line has its own severity, SQLSTATE, place and shape in every format.

use super::{activity, denial, statement};
use cee_scape::{SigJmpBufFields, call_with_sigsetjmp};
use meshhook_secrets_core::redact::{
    MASK,
    lexer::{Kind, Tokens},
    line::{Line, MaskedLine},
    taint,
};
use pgrx::pg_sys::{self, ErrorData};
use std::{
    borrow::Cow,
    ffi::{CStr, CString, c_char},
    panic::catch_unwind,
    ptr::null_mut,
    sync::OnceLock,
};

// PostgreSQL's own functions, undecorated: see `pg::raise`.
unsafe extern "C-unwind" {
    fn EmitErrorReport();
    fn pg_re_throw() -> !;
}

static PREVIOUS: OnceLock<pg_sys::emit_log_hook_type> = OnceLock::new();

/// What `context_domain` points to while the masked line is logged. It serves while an error is
/// being made, which is over by now, and every new error sets it.
static MARK: &CStr = c"meshhook_secrets: masked";

/// The name under which this extension raises its errors (see `pg::raise`).
const OURS: &CStr = c"meshhook_secrets";

/// Installs the hook.
pub fn init() {
    // SAFETY: libraries are loaded by a single thread, once.
    unsafe {
        PREVIOUS.get_or_init(|| pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(on_log);
    }
}

unsafe extern "C-unwind" fn on_log(error: *mut ErrorData) {
    // SAFETY: PostgreSQL's argument; no destructor lives here.
    unsafe {
        if (*error).context_domain != MARK.as_ptr() {
            let line = inspect(error);
            if !line.is_null() {
                return log_masked(error, line);
            }
        }
        if let Some(Some(previous)) = PREVIOUS.get() {
            previous(error);
        }
    }
}

/// The masked texts of a line, in memory of their own. A missing one is missing in the error too.
struct Prepared {
    message: Option<CString>,
    detail: Option<CString>,
    detail_log: Option<CString>,
    hint: Option<CString>,
    context: Option<CString>,
    internal_query: Option<CString>,
    statement: Option<CString>,
    position: i32,
    internal_position: i32,
}

/// The masked line, on the heap; null if nothing is to be masked.
fn inspect(error: *mut ErrorData) -> *mut Prepared {
    // SAFETY: `on_log` was given a valid error.
    let prepared = catch_unwind(|| unsafe { prepare(error) }).unwrap_or_else(|_| {
        // SAFETY: as above.
        Some(unsafe { Prepared::blunt(error) })
    });
    prepared.map_or(null_mut(), |prepared| Box::into_raw(Box::new(prepared)))
}

/// # Safety
/// `error` is valid.
unsafe fn prepare(error: *mut ErrorData) -> Option<Prepared> {
    // SAFETY: `error` is valid, and its texts and the statement's are C strings that outlive this.
    unsafe {
        let error = &*error;
        let statement = text(pg_sys::debug_query_string);
        let [message, detail, detail_log, hint, context, internal_query] = [
            error.message,
            error.detail,
            error.detail_log,
            error.hint,
            error.context,
            error.internalquery,
        ]
        .map(|part| text(part));
        let format = text(error.message_id).unwrap_or_default();
        let state = state(error.sqlerrcode);
        let ours = text(error.filename) == Some(OURS.to_bytes());
        if &state == b"42501" && !ours {
            let (message, statement) = (message.unwrap_or_default(), statement.unwrap_or_default());
            denial::notice(format, message, statement);
        }

        let ran = statement::has_run();
        let parts = [message, detail, detail_log, hint, context, internal_query];
        let concerned = ran
            || statement::carries()
            || is_fastpath()
            || parts.into_iter().flatten().any(statement::mentions);
        if !concerned {
            return None;
        }
        if statement::carries() {
            // A statement that does not get through the parser is shown as it is until here.
            activity::mask();
        }
        let (parameters, unknown_parameters) = parameters(statement);
        // Positions count characters.
        let countable = pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32
            || statement.is_some_and(<[u8]>::is_ascii);
        let place = |place: i32| if countable { usize::try_from(place).unwrap_or(0) } else { 0 };
        let line = Line {
            ours,
            ran,
            unknown_parameters,
            state,
            format,
            message,
            detail,
            detail_log,
            hint,
            context,
            internal_query,
            statement,
            position: place(error.cursorpos),
            internal_position: place(error.internalpos),
            parameters: &parameters,
        };
        let masked = line.mask();
        (!is_same(&line, &masked)).then(|| Prepared::from(masked))
    }
}

/// Whether masking changed nothing.
fn is_same(line: &Line, masked: &MaskedLine) -> bool {
    [
        (line.message, &masked.message),
        (line.detail, &masked.detail),
        (line.detail_log, &masked.detail_log),
        (line.hint, &masked.hint),
        (line.context, &masked.context),
        (line.internal_query, &masked.internal_query),
        (line.statement, &masked.statement),
    ]
    .into_iter()
    .all(|(before, after)| before == after.as_deref())
}

impl From<MaskedLine> for Prepared {
    fn from(line: MaskedLine) -> Self {
        let place = |place: usize| i32::try_from(place).unwrap_or(0);
        Self {
            message: line.message.map(c_string),
            detail: line.detail.map(c_string),
            detail_log: line.detail_log.map(c_string),
            hint: line.hint.map(c_string),
            context: line.context.map(c_string),
            internal_query: line.internal_query.map(c_string),
            statement: line.statement.map(c_string),
            position: place(line.position),
            internal_position: place(line.internal_position),
        }
    }
}

impl Prepared {
    /// Nothing but asterisks: for when something goes wrong here.
    ///
    /// # Safety
    /// `error` is valid.
    unsafe fn blunt(error: *mut ErrorData) -> Self {
        let masked = |part: *const c_char| (!part.is_null()).then(|| c_string(MASK.to_vec()));
        // SAFETY: `error` is valid; only whether its texts are there is looked at.
        unsafe {
            Self {
                message: masked((*error).message),
                detail: masked((*error).detail),
                detail_log: masked((*error).detail_log),
                hint: masked((*error).hint),
                context: masked((*error).context),
                internal_query: masked((*error).internalquery),
                statement: masked(pg_sys::debug_query_string),
                position: 0,
                internal_position: 0,
            }
        }
    }
}

fn c_string(text: Vec<u8>) -> CString {
    // They come from C strings.
    CString::new(text).unwrap_or_else(|_| c"***".to_owned())
}

/// Has PostgreSQL log the masked line, and leaves to it to send the original to the client.
///
/// # Safety
/// Called by PostgreSQL's hook with its argument; `line` comes from `Box::into_raw`.
unsafe fn log_masked(error: *mut ErrorData, line: *mut Prepared) {
    // SAFETY: single-threaded backend. What is replaced lives until it is put back; errors of the
    // logging itself come by here, and no destructor lives in this frame when they go on.
    unsafe {
        let original = *error;
        let statement = pg_sys::debug_query_string;
        let pointer = |text: &Option<CString>| {
            text.as_ref().map_or(null_mut(), |text| text.as_ptr().cast_mut())
        };
        (*error).message = pointer(&(*line).message);
        (*error).detail = pointer(&(*line).detail);
        (*error).detail_log = pointer(&(*line).detail_log);
        (*error).hint = pointer(&(*line).hint);
        (*error).context = pointer(&(*line).context);
        (*error).internalquery = pointer(&(*line).internal_query);
        (*error).cursorpos = (*line).position;
        (*error).internalpos = (*line).internal_position;
        (*error).output_to_client = false;
        (*error).context_domain = MARK.as_ptr();
        pg_sys::debug_query_string = pointer(&(*line).statement);

        let exceptions = pg_sys::PG_exception_stack;
        let callbacks = pg_sys::error_context_stack;
        let failed = call_with_sigsetjmp(false, |buffer| {
            pg_sys::PG_exception_stack = (buffer as *const SigJmpBufFields).cast_mut().cast();
            EmitErrorReport();
            0
        });
        pg_sys::PG_exception_stack = exceptions;
        pg_sys::error_context_stack = callbacks;

        *error = original;
        (*error).output_to_server = false;
        pg_sys::debug_query_string = statement;
        drop(Box::from_raw(line));
        if failed != 0 {
            pg_re_throw();
        }
    }
}

/// # Safety
/// A C string that outlives the result, or null.
unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: see above.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// The five characters of an encoded SQLSTATE.
fn state(code: i32) -> [u8; 5] {
    [0, 6, 12, 18, 24].map(|shift| (code >> shift & 0x3f) as u8 + b'0')
}

/// Whether the client calls a function without a statement.
fn is_fastpath() -> bool {
    // SAFETY: this backend's own entry, or null.
    unsafe {
        let entry = pg_sys::MyBEEntry;
        !entry.is_null() && (*entry).st_state == pg_sys::BackendState::STATE_FASTPATH
    }
}

/// Parameters where they are, and those that had to be written anew.
type Parameters<'a> = Vec<Cow<'a, [u8]>>;

/// The parameters of the client's statement, and whether there are more that cannot be read.
///
/// # Safety
/// `statement` is the current one, and the result does not outlive its portal.
unsafe fn parameters<'a>(statement: Option<&[u8]>) -> (Parameters<'a>, bool) {
    let Some(statement) = statement else { return (Vec::new(), false) };
    let has_parameters = Tokens::of(statement).any(|token| {
        token.kind == Kind::Other && token.whole.len() > 1 && statement[token.whole.start] == b'$'
    });
    if !has_parameters {
        return (Vec::new(), false);
    }
    // SAFETY: with a database there is a portal manager. A portal that it knows is whole, and has
    // its parameters in its own memory, until it is dropped at the end of the transaction.
    unsafe {
        if pg_sys::MyDatabaseId == pg_sys::InvalidOid {
            return (Vec::new(), true);
        }
        // After an error there is no active portal any more.
        for portal in [pg_sys::ActivePortal, pg_sys::GetPortalByName(c"".as_ptr())] {
            if portal.is_null() || text((*portal).sourceText) != Some(statement) {
                continue;
            }
            return read_parameters((*portal).portalParams);
        }
    }
    (Vec::new(), true)
}

/// # Safety
/// Valid or null, and the result does not outlive it.
unsafe fn read_parameters<'a>(list: pg_sys::ParamListInfo) -> (Parameters<'a>, bool) {
    // SAFETY: see above; a parameter's datum is of its type.
    unsafe {
        if list.is_null() || (*list).paramFetch.is_some() {
            return (Vec::new(), true);
        }
        let mut values = Vec::new();
        let mut unknown = false;
        let list = (*list).params.as_slice((*list).numParams.max(0) as usize);
        // Running out of memory must not end the server. Of a bytea, both spellings.
        if values.try_reserve_exact(2 * list.len()).is_err() {
            return (Vec::new(), true);
        }
        for parameter in list {
            if parameter.isnull {
                continue;
            }
            match parameter.ptype {
                pg_sys::TEXTOID
                | pg_sys::VARCHAROID
                | pg_sys::BPCHAROID
                | pg_sys::JSONOID
                | pg_sys::BYTEAOID => {
                    let datum: *const pg_sys::varlena = parameter.value.cast_mut_ptr();
                    if !pgrx::varlena::varatt_is_4b_u(datum) {
                        unknown = true;
                        continue;
                    }
                    let bytes = std::slice::from_raw_parts(
                        pgrx::vardata_any(datum).cast::<u8>(),
                        pgrx::varsize_any_exhdr(datum),
                    );
                    if parameter.ptype == pg_sys::BYTEAOID {
                        match hex(bytes) {
                            Some(digits) => values.push(Cow::Owned(digits)),
                            None => unknown = true,
                        }
                    }
                    values.push(Cow::Borrowed(bytes));
                }
                // No values of secrets.
                pg_sys::UUIDOID
                | pg_sys::BOOLOID
                | pg_sys::INT2OID
                | pg_sys::INT4OID
                | pg_sys::INT8OID
                | pg_sys::OIDOID
                | pg_sys::FLOAT4OID
                | pg_sys::FLOAT8OID
                | pg_sys::DATEOID
                | pg_sys::TIMESTAMPOID
                | pg_sys::TIMESTAMPTZOID
                | pg_sys::INTERVALOID => {}
                _ => unknown = true,
            }
        }
        (values, unknown)
    }
}

/// Hexadecimal digits; `None` if they are too many to be looked for.
fn hex(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut digits = Vec::new();
    let length = bytes.len().checked_mul(2).filter(|length| *length <= taint::LONGEST)?;
    digits.try_reserve_exact(length).ok()?;
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    digits.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
    Some(digits)
}
