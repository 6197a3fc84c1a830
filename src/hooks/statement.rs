//! Which statements values go through: those that mention a function for values, those in which one
//! has run, and those that run what an earlier one prepared.

use super::activity;
use crate::{gucs, pg::version};
use meshhook_secrets_core::redact::{names::Names, sql, text::has_keyword};
use pgrx::pg_sys;
use std::{
    cell::{Cell, RefCell},
    ffi::{CStr, c_char},
    panic::catch_unwind,
    sync::OnceLock,
};

// Undecorated: it reads a variable, for every statement.
unsafe extern "C-unwind" {
    fn GetCurrentStatementStartTimestamp() -> i64;
}

/// A message of the client: where its statement's text is, and when it came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id {
    /// PostgreSQL's `debug_query_string`.
    pub text: *const c_char,
    start: i64,
    timed: bool,
}

impl Id {
    /// Whether another statement has another one. Background workers need not set the time; those of
    /// parallel queries have the leader's.
    pub fn is_reliable(&self) -> bool {
        self.timed
    }
}

/// What is known of a statement.
#[derive(Clone, Copy)]
struct Known {
    id: Id,
    carries: bool,
    has_strings: bool,
}

thread_local! {
    static KNOWN: Cell<Option<Known>> = const { Cell::new(None) };
    /// When the statement came in which a function for values ran last.
    static RAN: Cell<Option<i64>> = const { Cell::new(None) };
    /// Whether this session has prepared such a statement, or declared a cursor with one.
    static PREPARED: Cell<bool> = const { Cell::new(false) };
    /// The names, and the setting that they were made from.
    static NAMES: RefCell<Option<(Vec<u8>, Names)>> = const { RefCell::new(None) };
}

static PREVIOUS_ANALYZE: OnceLock<pg_sys::post_parse_analyze_hook_type> = OnceLock::new();
static PREVIOUS_START: OnceLock<pg_sys::ExecutorStart_hook_type> = OnceLock::new();
static PREVIOUS_UTILITY: OnceLock<pg_sys::ProcessUtility_hook_type> = OnceLock::new();

/// Installs the hooks.
pub fn init() {
    // SAFETY: libraries are loaded by a single thread, once.
    unsafe {
        PREVIOUS_ANALYZE.get_or_init(|| pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(on_analyze);
        PREVIOUS_START.get_or_init(|| pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(on_start);
        version::before_executor_run(about_to_run);
        PREVIOUS_UTILITY.get_or_init(|| pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(on_utility);
    }
}

/// The client's statement that runs now.
pub fn current() -> Option<Id> {
    // SAFETY: reads backend state.
    unsafe {
        let text = pg_sys::debug_query_string;
        (!text.is_null()).then(|| Id {
            text,
            start: GetCurrentStatementStartTimestamp(),
            timed: !pg_sys::MyProcPort.is_null() || pg_sys::ParallelWorkerNumber >= 0,
        })
    }
}

/// A function for values was entered.
pub fn value_function_runs() {
    // SAFETY: reads backend state.
    RAN.set(Some(unsafe { GetCurrentStatementStartTimestamp() }));
    activity::mask();
}

/// Whether one was entered since the client's last message.
pub fn has_run() -> bool {
    // SAFETY: reads backend state.
    RAN.get() == Some(unsafe { GetCurrentStatementStartTimestamp() })
}

/// Whether values may be in the text of the client's statement.
pub fn carries() -> bool {
    known().is_some_and(|known| known.carries)
}

/// Whether a text mentions a function for values.
pub fn mentions(text: &[u8]) -> bool {
    let setting = gucs::value_functions();
    NAMES.with_borrow_mut(|names| {
        let made = names.as_ref().is_some_and(|(from, _)| from == setting.to_bytes());
        if !made {
            *names = None;
        }
        let (_, names) = names
            .get_or_insert_with(|| (setting.to_bytes().to_vec(), Names::new(setting.to_bytes())));
        names.mentioned_in(text)
    })
}

fn known() -> Option<Known> {
    let id = current()?;
    if let Some(known) = KNOWN.get()
        && known.id == id
        && id.is_reliable()
    {
        return Some(known);
    }
    // SAFETY: PostgreSQL keeps the statement's text as long as it is the current one.
    let text = unsafe { CStr::from_ptr(id.text) }.to_bytes();
    let runs_prepared =
        || PREPARED.get() && has_keyword(text, &["EXECUTE", "FETCH", "MOVE", "COMMIT", "END"]);
    let carries = mentions(text) || runs_prepared();
    let known = Known { id, carries, has_strings: carries && sql::has_strings(text) };
    KNOWN.set(Some(known));
    Some(known)
}

unsafe extern "C-unwind" fn on_analyze(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: PostgreSQL's arguments; no destructor lives here.
    unsafe {
        // Without a query id, pg_stat_statements keeps nothing of the statement, on whichever side
        // of us in the chain it is. It normalizes literals away, but not those of utility
        // statements, nor when a prepared statement runs after it has forgotten everything.
        if holds_values(state, query) {
            (*query).queryId = 0;
        }
        if let Some(Some(previous)) = PREVIOUS_ANALYZE.get() {
            previous(state, query, jumble);
        }
    }
}

/// Whether literals of the analysed statement may be values; hides them from `pg_stat_activity`.
fn holds_values(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query) -> bool {
    let look = || {
        // SAFETY: PostgreSQL's arguments.
        let (text, utility) = unsafe { ((*state).p_sourcetext, (*query).utilityStmt) };
        if text.is_null() {
            return false;
        }
        let (carries, has_strings) = match known() {
            Some(known) if known.id.text == text => (known.carries, known.has_strings),
            _ => {
                // SAFETY: the parser's text is a C string.
                let text = unsafe { CStr::from_ptr(text) }.to_bytes();
                let carries = mentions(text);
                (carries, carries && sql::has_strings(text))
            }
        };
        if carries {
            // SAFETY: a node starts with its tag.
            let tag = (!utility.is_null()).then(|| unsafe { (*utility).type_ });
            if matches!(
                tag,
                Some(pg_sys::NodeTag::T_PrepareStmt | pg_sys::NodeTag::T_DeclareCursorStmt)
            ) {
                PREPARED.set(true);
            }
            activity::mask();
        }
        has_strings
    };
    catch_unwind(std::panic::AssertUnwindSafe(look)).unwrap_or(true)
}

/// The text of a prepared statement is shown anew when it runs.
fn about_to_run() {
    let _ = catch_unwind(|| {
        if carries() {
            activity::mask();
        }
    });
}

/// A client that binds a query starts it, and need not run it.
unsafe extern "C-unwind" fn on_start(query: *mut pg_sys::QueryDesc, flags: i32) {
    about_to_run();
    // SAFETY: PostgreSQL's arguments; no destructor lives here.
    unsafe {
        match PREVIOUS_START.get() {
            Some(Some(previous)) => previous(query, flags),
            _ => standard_ExecutorStart(query, flags),
        }
    }
}

unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    about_to_run();
    // SAFETY: PostgreSQL's arguments; no destructor lives here.
    unsafe {
        let next = match PREVIOUS_UTILITY.get() {
            Some(Some(previous)) => *previous,
            _ => standard_ProcessUtility,
        };
        next(statement, text, read_only, context, parameters, environment, receiver, completion);
    }
}

// Undecorated: errors pass through them.
unsafe extern "C-unwind" {
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: i32);
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}
