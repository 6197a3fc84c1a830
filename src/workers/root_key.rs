//! The worker that fetches the root key: at server start, at reload, when `unseal()` asks, and again
//! by itself after a failure. Never the postmaster: a source that hangs must not keep the server
//! from starting.

use crate::{pg::raise, root_key, root_key::Outcome, shmem::keyring};
use pgrx::{
    bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags},
    pg_sys,
    prelude::*,
};
use std::time::Duration;

/// The pause after the first failure; doubled after each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_LAST: Duration = Duration::from_secs(60);

/// Registers the worker with the postmaster.
pub fn init() {
    BackgroundWorkerBuilder::new("meshhook_secrets root key")
        .set_type("meshhook_secrets root key")
        .set_library("meshhook_secrets")
        .set_function("meshhook_secrets_root_key_worker")
        .set_start_time(BgWorkerStartTime::PostmasterStart)
        .set_restart_time(Some(Duration::from_secs(1)))
        .enable_shmem_access(None)
        .load();
}

/// The worker's main function.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn meshhook_secrets_root_key_worker(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // An error here means that the library is not preloaded, and then there is no worker.
    let _ = keyring::attach_worker();
    let mut retry = RETRY_FIRST;
    let mut reported = None;
    loop {
        let pause = match fetch() {
            Fetched::Open(id) => {
                report(&mut reported, Report::Open(id));
                retry = RETRY_FIRST;
                None
            }
            Fetched::Forbidden => None,
            Fetched::Failed(failure) => {
                report(&mut reported, Report::Failed(failure));
                let pause = retry;
                retry = (retry * 2).min(RETRY_LAST);
                Some(pause)
            }
            Fetched::Stopped => stop(),
        };
        // Sleeps without waking up until there is something to do.
        loop {
            if !BackgroundWorker::wait_latch(pause) {
                stop();
            }
            if BackgroundWorker::sighup_received() {
                // SAFETY: the standard reaction of a worker to SIGHUP.
                unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
                retry = RETRY_FIRST;
                break;
            }
            if pause.is_some()
                || keyring::asked().is_ok_and(|(asked, answered, _)| asked > answered)
            {
                break;
            }
        }
    }
}

/// Ends the worker. Status 1: the postmaster starts it again unless the server shuts down.
fn stop() -> ! {
    // SAFETY: ends this process by PostgreSQL's own rules.
    unsafe { pg_sys::proc_exit(1) }
}

enum Fetched {
    Open(String),
    Failed(root_key::Failure),
    /// An operator sealed; the source is not even looked at.
    Forbidden,
    Stopped,
}

fn fetch() -> Fetched {
    let Ok((asked, _, forbidden)) = keyring::asked() else {
        return Fetched::Stopped;
    };
    if forbidden {
        return Fetched::Forbidden;
    }
    match root_key::load(BackgroundWorker::sigterm_received) {
        Outcome::Stopped => Fetched::Stopped,
        Outcome::Keys(keys) => match keyring::open(&keys, asked) {
            Ok(true) => {
                Fetched::Open(keys.first().map(|key| key.fingerprint()).unwrap_or_default())
            }
            _ => Fetched::Forbidden,
        },
        Outcome::Failed(failure) => {
            let _ = keyring::fail(&failure.cause, &failure.remedy, asked);
            Fetched::Failed(failure)
        }
    }
}

#[derive(PartialEq, Eq)]
enum Report {
    Open(String),
    Failed(root_key::Failure),
}

/// Logs a change of state, once.
fn report(last: &mut Option<Report>, now: Report) {
    if last.as_ref() == Some(&now) {
        return;
    }
    match &now {
        Report::Open(id) => raise::log(
            pgrx::PgLogLevel::LOG,
            &format!("meshhook_secrets: secrets are open with root key {id}"),
            None,
        ),
        Report::Failed(failure) => raise::log(
            pgrx::PgLogLevel::WARNING,
            &format!("meshhook_secrets: secrets are sealed: {}", failure.cause),
            Some(&failure.remedy),
        ),
    }
    *last = Some(now);
}
