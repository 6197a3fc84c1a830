//! Background workers.

pub mod audit;
pub mod launcher;
pub mod maintenance;
pub mod root_key;

use crate::{
    error::{Error, Result},
    pg::version,
};
use pgrx::pg_sys;
use std::{
    ffi::CString,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Ends a worker. Status 1: the postmaster starts it again, if it is of the kind that is restarted,
/// unless the server shuts down.
fn stop() -> ! {
    version::exit(1)
}

/// The handler of SIGTERM that pgrx installed.
static STOP: AtomicUsize = AtomicUsize::new(0);

/// Lets SIGTERM end a wait for a synchronous standby, which asks neither for the latch nor for pgrx's flag:
/// the commit stays local, and the server can stop. To be called after pgrx's handlers were attached.
fn interrupt_waits_for_standbys() {
    // SAFETY: plain system calls; the handler that is replaced is called by ours.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGTERM, std::ptr::null(), &mut action);
        STOP.store(action.sa_sigaction, Ordering::Relaxed);
        action.sa_sigaction = on_sigterm as *const () as usize;
        libc::sigaction(libc::SIGTERM, &action, std::ptr::null_mut());
    }
}

extern "C" fn on_sigterm(signal: libc::c_int) {
    // SAFETY: the address of pgrx's handler, which takes the signal's number; reads and writes flags that
    // signal handlers of PostgreSQL read and write too. What was interrupted finds its errno as it was: before
    // version 17 nobody else sees to that.
    unsafe {
        let errno = libc::__errno_location();
        let interrupted = *errno;
        let former = STOP.load(Ordering::Relaxed);
        if former != libc::SIG_DFL && former != libc::SIG_IGN {
            std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(former)(signal);
        }
        let process = pg_sys::MyProc;
        if !process.is_null() && (*process).syncRepState == pg_sys::SYNC_REP_WAITING as i32 {
            pg_sys::QueryCancelPending = 1;
            pg_sys::InterruptPending = 1;
        }
        *errno = interrupted;
    }
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
                // Nobody else tells autovacuum what a worker leaves behind; of itself this does so once a second.
                pg_sys::pgstat_report_stat(false);
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
