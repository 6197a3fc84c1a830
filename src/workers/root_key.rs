//! The worker that fetches the root key: at server start, at reload, when `unseal()` asks, and again
//! by itself after a failure. Never the postmaster: a source that hangs must not keep the server
//! from starting.

use super::stop;
use crate::{
    pg::{raise, server},
    root_key::{self, Interruption, Outcome},
    shmem::{audit, keyring},
};
use pgrx::{
    bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags},
    pg_sys,
    prelude::*,
};
use std::{cell::Cell, mem::take, time::Duration};

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
    // After a crash restart the keys are still in memory: a source that cannot be reached just now
    // does no harm. But a reload may have come while no worker was there.
    let mut due = keyring::task().map_or(true, |task| {
        !task.open || task.asked > task.answered || task.reloaded < server::reloaded()
    });
    let mut doubtful = !due && keyring::task().is_ok_and(|task| is_unclear(task.reloaded));
    loop {
        let mut pause = None;
        if due || doubtful {
            let reloaded = server::reloaded();
            let fetched = fetch(take(&mut doubtful));
            if !matches!(fetched, Fetched::Superseded | Fetched::Stopped) {
                let _ = keyring::looked(reloaded);
            }
            match fetched {
                Fetched::Open(id) => {
                    report(&mut reported, Report::Open(id));
                    retry = RETRY_FIRST;
                }
                Fetched::Forbidden | Fetched::Nothing => {}
                Fetched::Superseded => pause = Some(Duration::from_millis(1)),
                Fetched::Failed(failure) => {
                    report(&mut reported, Report::Failed(failure));
                    pause = Some(retry);
                    retry = (retry * 2).min(RETRY_LAST);
                }
                Fetched::Stopped => stop(),
            }
        }
        // Without a failure to make up for, this sleeps until there is something to do.
        if !BackgroundWorker::wait_latch(pause) {
            stop();
        }
        due = pause.is_some() || keyring::task().is_ok_and(|task| task.asked > task.answered);
        if RELOAD.take() || BackgroundWorker::sighup_received() {
            // SAFETY: the standard reaction of a worker to SIGHUP.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
            retry = RETRY_FIRST;
            due = true;
        }
    }
}

/// Whether the clock was set back since that look, so that nobody can tell whether a reload came after it.
fn is_unclear(looked: i64) -> bool {
    looked > server::reloaded() && looked > server::now()
}

thread_local! {
    /// A SIGHUP was noticed while a command was running.
    static RELOAD: Cell<bool> = const { Cell::new(false) };
}

/// Whether a running command shall be given up, and why.
fn interruption(asked: u64) -> Option<Interruption> {
    // SAFETY: reads process state. An orphan has another parent than the postmaster.
    let orphaned = unsafe { libc::getppid() != pg_sys::PostmasterPid };
    if BackgroundWorker::sigterm_received() || orphaned {
        return Some(Interruption::Stop);
    }
    if BackgroundWorker::sighup_received() {
        RELOAD.set(true);
    }
    let asked_again = keyring::task().is_ok_and(|task| task.asked > asked || task.forbidden);
    (RELOAD.get() || asked_again).then_some(Interruption::Restart)
}

enum Fetched {
    Open(String),
    Failed(root_key::Failure),
    /// An operator sealed; the source was not even looked at.
    Forbidden,
    /// Nobody may have asked for this look, and it failed: no reason to seal.
    Nothing,
    /// Given up because there is something newer to do.
    Superseded,
    Stopped,
}

fn fetch(doubtful: bool) -> Fetched {
    let Ok(task) = keyring::task() else {
        return Fetched::Stopped;
    };
    if task.forbidden {
        let _ = keyring::decline(task.asked);
        return Fetched::Forbidden;
    }
    match root_key::load(|| interruption(task.asked)) {
        Outcome::Interrupted(Interruption::Stop) => Fetched::Stopped,
        Outcome::Interrupted(Interruption::Restart) => Fetched::Superseded,
        Outcome::Keys(keys) => match keyring::open(&keys, task.asked) {
            Ok(true) => {
                Fetched::Open(keys.first().map(|key| key.fingerprint()).unwrap_or_default())
            }
            _ => Fetched::Superseded,
        },
        Outcome::Failed(_) if doubtful => Fetched::Nothing,
        Outcome::Failed(failure) => {
            let _ = keyring::fail(&failure.cause, &failure.remedy, task.asked);
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
        Report::Open(id) => {
            audit::server_event("root_key_load", false, &format!("root key {id}"));
            raise::log(
                pgrx::PgLogLevel::LOG,
                &format!("meshhook_secrets: secrets are open with root key {id}"),
                None,
            );
        }
        Report::Failed(failure) => {
            audit::server_event("sealed", true, &failure.cause);
            raise::log(
                pgrx::PgLogLevel::WARNING,
                &format!("meshhook_secrets: secrets are sealed: {}", failure.cause),
                Some(&failure.remedy),
            );
        }
    }
    *last = Some(now);
}
