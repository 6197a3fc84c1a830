//! The launcher: looks into every database once after the server has started (or was promoted), and
//! starts a worker for a database whenever there is something to do in it. It is connected to no
//! database, so it keeps none from being dropped, and sleeps without waking up in between.

use super::stop;
use crate::{
    pg::{raise, server},
    shmem::board,
};
use pgrx::{
    bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags},
    pg_sys,
    prelude::*,
};
use std::{ffi::c_char, time::Duration};

/// Registers the launcher with the postmaster.
pub fn init() {
    BackgroundWorkerBuilder::new("meshhook_secrets launcher")
        .set_type("meshhook_secrets launcher")
        .set_library("meshhook_secrets")
        .set_function("meshhook_secrets_launcher")
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(5)))
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
    loop {
        if let Some(database) = unseen.pop() {
            board::post(database);
        }
        let pause = match board::next().map(|(database, due)| (database, due - server::now())) {
            Some((database, ..=0)) => {
                board::take(database, server::now());
                if BackgroundWorker::transaction(databases).contains(&database) {
                    start(database);
                } else {
                    board::clear(database);
                }
                Some(Duration::from_millis(1))
            }
            _ if !unseen.is_empty() => Some(Duration::from_millis(1)),
            Some((_, wait)) => {
                Some(Duration::from_micros(wait as u64 + 1000).min(Duration::from_secs(3600)))
            }
            None => None,
        };
        if !BackgroundWorker::wait_latch(pause) {
            stop();
        }
        if BackgroundWorker::sighup_received() {
            // SAFETY: the standard reaction of a worker to SIGHUP.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
    }
}

/// Starts the worker of a database and waits for its end: one at a time, so that a server with many
/// databases needs no more than one worker slot for all of them.
fn start(database: u32) {
    let worker = BackgroundWorkerBuilder::new("meshhook_secrets maintenance")
        .set_type("meshhook_secrets maintenance")
        .set_library("meshhook_secrets")
        .set_function("meshhook_secrets_maintenance")
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_argument(Some(pg_sys::Datum::from(database)))
        // SAFETY: reads backend state.
        .set_notify_pid(unsafe { pg_sys::MyProcPid })
        .enable_spi_access()
        .load_dynamic();
    match worker {
        Ok(worker) => {
            let _ = worker.wait_for_shutdown();
        }
        Err(_) => raise::log(
            pgrx::PgLogLevel::WARNING,
            "meshhook_secrets: no background worker slot is free for key maintenance",
            Some("Raise max_worker_processes; it is tried again."),
        ),
    }
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
