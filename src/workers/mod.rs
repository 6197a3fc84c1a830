//! Background workers.

pub mod audit;
pub mod launcher;
pub mod maintenance;
pub mod root_key;

use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::CString;

/// Ends a worker. Status 1: the postmaster starts it again, if it is of the kind that is restarted,
/// unless the server shuts down.
fn stop() -> ! {
    // SAFETY: ends this process by PostgreSQL's own rules.
    unsafe { pg_sys::proc_exit(1) }
}

/// Whoever waits for a lock for long lets others wait. What the database sets for its sessions is not
/// meant for workers.
fn prepare_session() {
    for (setting, value) in [
        (c"lock_timeout", c"5s"),
        (c"statement_timeout", c"0"),
        (c"default_transaction_read_only", c"off"),
        (c"default_transaction_isolation", c"read committed"),
    ] {
        // SAFETY: settings of this session.
        unsafe {
            pg_sys::SetConfigOption(
                setting.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
            );
        }
    }
}

/// Runs `work` in a transaction of its own, which is rolled back if it is refused. After an error of
/// PostgreSQL's the transaction stays as it is: the error lives in its memory, and ends the process.
fn transaction<T>(activity: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    show(pg_sys::BackendState::STATE_RUNNING, &format!("meshhook_secrets: {activity}"));
    // SAFETY: the standard frame of a transaction in a background worker.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let result = work();
    // SAFETY: as above.
    unsafe {
        match &result {
            Ok(_) => {
                pg_sys::PopActiveSnapshot();
                pg_sys::CommitTransactionCommand();
            }
            Err(Error::Refused(_)) => pg_sys::AbortCurrentTransaction(),
            Err(Error::Postgres(_)) => return result,
        }
    }
    result
}

fn show(state: pg_sys::BackendState::Type, activity: &str) {
    if let Ok(text) = CString::new(activity) {
        // SAFETY: the text is copied.
        unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) };
    }
}
