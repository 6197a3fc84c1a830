//! The launcher: looks into every database once after the server has started (or was promoted), and
//! starts a worker for a database whenever there is something to do in it, and an audit writer whenever
//! there is something to write. It is connected to no
//! database, so it keeps none from being dropped, and sleeps without waking up in between.

use super::{maintenance::FIRST_VISIT, stop};
use crate::{
    pg::{raise, server},
    shmem::{audit, board},
};
use pgrx::{
    bgworkers::{
        BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime,
        DynamicBackgroundWorker, SignalWakeFlags,
    },
    pg_sys,
    prelude::*,
};
use std::{
    collections::HashSet,
    ffi::{CStr, c_char},
    time::Duration,
};

/// Registers the launcher with the postmaster.
pub fn init() {
    BackgroundWorkerBuilder::new("meshhook_secrets launcher")
        .set_type("meshhook_secrets launcher")
        .set_library("meshhook_secrets")
        .set_function("meshhook_secrets_launcher")
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .enable_spi_access()
        .load();
}

/// The launcher's main function.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn meshhook_secrets_launcher(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi(None, None);
    board::attach_launcher();
    // One after the other, so that the board has room however many there are.
    let mut unseen = BackgroundWorker::transaction(databases);
    let mut first_visit = HashSet::new();
    let mut maintenance: Option<DynamicBackgroundWorker> = None;
    loop {
        let mut pause = start_writers();
        if maintenance.as_ref().is_some_and(has_ended) {
            maintenance = None;
        }
        // One at a time, so that a server with many databases needs no more than one worker slot for
        // all of them.
        if maintenance.is_none() && !board::is_busy() {
            if let Some(database) = unseen.pop() {
                board::post(database);
                first_visit.insert(database);
            }
            match board::next() {
                Some((database, ..=0)) => {
                    board::take(database);
                    if BackgroundWorker::transaction(databases).contains(&database) {
                        let flag = if first_visit.remove(&database) { FIRST_VISIT } else { 0 };
                        let argument = u64::from(database) | flag;
                        maintenance =
                            start(c"meshhook_secrets_maintenance", "maintenance", argument);
                    } else {
                        board::clear(database);
                    }
                    pause = soon(pause, Duration::from_millis(1));
                }
                _ if !unseen.is_empty() => pause = soon(pause, Duration::from_millis(1)),
                Some((_, wait)) => {
                    pause = soon(pause, Duration::from_micros(wait as u64 + 1000));
                }
                None => {}
            }
        } else {
            // Its end is a signal that wakes us; a lost one costs a second.
            pause = soon(pause, Duration::from_secs(1));
        }
        if !BackgroundWorker::wait_latch(pause) {
            stop();
        }
        if BackgroundWorker::sighup_received() {
            // SAFETY: the standard reaction of a worker to SIGHUP.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
    }
}

/// The sooner of the two, within the hour.
fn soon(pause: Option<Duration>, other: Duration) -> Option<Duration> {
    Some(pause.unwrap_or(Duration::from_secs(3600)).min(other))
}

/// Starts the audit writers of databases that need one; when to look again.
fn start_writers() -> Option<Duration> {
    let needed = audit::unattended();
    if needed.is_empty() {
        return None;
    }
    let now = server::uptime();
    let mut pause = None;
    let mut there = None;
    for (database, earliest) in needed {
        if earliest > now {
            pause = soon(pause, Duration::from_micros((earliest - now) as u64 + 1000));
            continue;
        }
        let there: &Vec<u32> =
            there.get_or_insert_with(|| BackgroundWorker::transaction(databases));
        if there.contains(&database) {
            audit::starting(database, now);
            start(c"meshhook_secrets_audit_writer", "audit", u64::from(database));
            // Until it has signed on it counts as missing.
            pause = soon(pause, Duration::from_secs(1));
        } else {
            super::audit::log_lost(&audit::abandon(database));
        }
    }
    pause
}

/// Starts a worker for a database.
fn start(function: &CStr, kind: &str, argument: u64) -> Option<DynamicBackgroundWorker> {
    let worker = BackgroundWorkerBuilder::new(&format!("meshhook_secrets {kind}"))
        .set_type(&format!("meshhook_secrets {kind}"))
        .set_library("meshhook_secrets")
        .set_function(&function.to_string_lossy())
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_argument(Some(pg_sys::Datum::from(argument)))
        // SAFETY: reads backend state.
        .set_notify_pid(unsafe { pg_sys::MyProcPid })
        .enable_spi_access()
        .load_dynamic();
    match worker {
        Ok(worker) => Some(worker),
        Err(_) => {
            raise::log(
                pgrx::PgLogLevel::WARNING,
                &format!("meshhook_secrets: no background worker slot is free for {kind}"),
                Some("Raise max_worker_processes; it is tried again."),
            );
            None
        }
    }
}

fn has_ended(worker: &DynamicBackgroundWorker) -> bool {
    matches!(
        worker.pid(),
        Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied)
    )
}

/// The databases that can be connected to.
fn databases() -> Vec<u32> {
    let mut databases = Vec::new();
    // SAFETY: a scan of pg_database inside a transaction; a tuple starts with its fixed part.
    unsafe {
        let relation =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let data = (*tuple).t_data;
            let form = data.cast::<c_char>().add((*data).t_hoff as usize);
            let form = &*form.cast::<pg_sys::FormData_pg_database>();
            // -2: a DROP DATABASE was interrupted, and nobody can connect any more.
            if form.datallowconn && form.datconnlimit != -2 {
                databases.push(form.oid.to_u32());
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    databases
}
