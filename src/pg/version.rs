//! What differs between PostgreSQL 15, 16, 17 and 18. The bindings, made for each, hide the rest.

use pgrx::pg_sys;
use std::sync::OnceLock;

static BEFORE: OnceLock<fn()> = OnceLock::new();
static PREVIOUS: OnceLock<pg_sys::ExecutorRun_hook_type> = OnceLock::new();

/// Has `before` run whenever a plan's execution starts or goes on.
///
/// # Safety
/// By a library that is being loaded, once.
pub unsafe fn before_executor_run(before: fn()) {
    BEFORE.get_or_init(|| before);
    // SAFETY: libraries are loaded by a single thread.
    unsafe {
        PREVIOUS.get_or_init(|| pg_sys::ExecutorRun_hook);
        pg_sys::ExecutorRun_hook = Some(on_executor_run);
    }
}

unsafe extern "C-unwind" fn on_executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))] once: bool,
) {
    if let Some(before) = BEFORE.get() {
        before();
    }
    let next = match PREVIOUS.get() {
        Some(Some(previous)) => *previous,
        _ => standard_ExecutorRun,
    };
    // SAFETY: PostgreSQL's arguments; no destructor lives here.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
        next(query, direction, count, once);
        #[cfg(feature = "pg18")]
        next(query, direction, count);
    }
}

// Undecorated: errors pass through it.
unsafe extern "C-unwind" {
    fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))] once: bool,
    );
}

/// Ends this process by PostgreSQL's own rules. The bindings for 18 do not know that it never returns.
pub fn exit(status: i32) -> ! {
    // SAFETY: backend processes end so.
    unsafe { pg_sys::proc_exit(status) };
    #[allow(unreachable_code, reason = "only 18 comes here, as far as the bindings know")]
    {
        std::process::abort()
    }
}
