//! The maintenance worker of one database: rewraps data keys during a rotation, rotates by schedule,
//! destroys KEKs whose wait is over. It is started by the launcher when there is something to do, does
//! it in short transactions, writes on the board when there will be something again, and ends: so it
//! keeps nobody from dropping the database or the extension. After an error it ends too, and is
//! started again, later each time.

use super::{interrupt_waits_for_standbys, prepare_session, stop, transaction};
use crate::{
    error::{Error, Refusal, Result},
    gucs,
    pg::{catalog, raise::Thrown, scan, server, session},
    service::{
        access,
        audit::{Kind, recorded},
        kek_life, rotation,
    },
    shmem::{
        audit,
        board::{self, Due},
        keyring,
    },
};
use pgrx::{
    bgworkers::{BackgroundWorker, SignalWakeFlags},
    pg_sys,
    prelude::*,
};
use std::time::Duration;

/// Added to the argument at the first visit after the server's start.
pub const FIRST_VISIT: u64 = 1 << 32;

/// The worker's main function; the argument is the database's OID, and perhaps [`FIRST_VISIT`].
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn meshhook_secrets_maintenance(argument: pg_sys::Datum) {
    let database = argument.value() as u32;
    let first = argument.value() as u64 & FIRST_VISIT != 0;
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    interrupt_waits_for_standbys();
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(database)), None);
    if !board::sign_on() {
        return;
    }
    // SAFETY: the callback takes nothing; it runs in this process before it leaves shared memory, however
    // it ends.
    unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::null()) };
    prepare_session();
    session::be_system();
    if let Err(thrown) = run(database, first).map_err(Thrown::from) {
        // SAFETY: nothing with a destructor is left in this frame. The transaction is still open, and
        // ends with the process.
        unsafe { thrown.throw() }
    }
}

unsafe extern "C-unwind" fn leave(_code: i32, _argument: pg_sys::Datum) {
    board::sign_off();
}

/// The shortest pause between two visits without a failure, in microseconds.
const PAUSE: i64 = 5_000_000;

/// How often a worker looks whether a subscription still keeps the keys, in microseconds.
const SUBSCRIBED: i64 = 60_000_000;

/// Does all there is to do. Only an error of PostgreSQL's comes out.
fn run(database: u32, first: bool) -> Result<()> {
    let posted = board::posted(database);
    if !transaction("looking for work", is_installed)? {
        board::done(database, posted, None);
        return Ok(());
    }
    if first {
        // Records of before may wait in the table, and the server's start is to be recorded. Not at other
        // visits: a dump may be being restored, and half a chain of seals is not to be continued.
        audit::look(database);
    }
    if keyring::status()?.sealed {
        // Nothing can be done without keys; the launcher comes back by and by.
        return Ok(());
    }
    if transaction("looking for work", access::is_subscriber)? {
        // The publisher's workers do it. Nobody tells us when the subscription is dropped.
        board::done(database, posted, Some(Due::after(SUBSCRIBED)));
        return Ok(());
    }
    let done = transaction("looking for work", start_due)
        .and_then(|()| rewrap_all())
        .and_then(|()| transaction("looking for work", kek_life::next_due));
    match done {
        // What is overdue could not be done just now: not at once again.
        Ok(due) => board::done(database, posted, due.map(not_at_once)),
        Err(Error::Refused(_)) if !transaction("looking for work", is_installed)? => {
            // Dropped meanwhile.
            board::done(database, posted, None);
        }
        Err(Error::Refused(refusal)) => transaction("reporting", || report(&refusal))?,
        Err(error) => return Err(error),
    }
    Ok(())
}

fn not_at_once(due: i64) -> Due {
    if due <= server::now() { Due::after(PAUSE) } else { Due::Date(due) }
}

fn is_installed() -> Result<bool> {
    Ok(catalog::extension_is_installed())
}

/// Does by itself what is due by schedule.
fn start_due() -> Result<()> {
    kek_life::destroy_due()?;
    let next = kek_life::next_rotation(scan::Sees::Latest)?;
    if next.is_some_and(|at| at <= server::now()) && rotation::running()?.is_none() {
        recorded(Kind::Change, "kek_rotate", |event| {
            event.detail("schedule");
            let rotation =
                rotation::rotate(Some(String::from("schedule")), String::from("system"))?;
            event.kek(rotation.job.kek_id);
            Ok(())
        })?;
    }
    Ok(())
}

/// Rewraps batch by batch, each in a transaction of its own.
fn rewrap_all() -> Result<()> {
    let mut position = rotation::Position::default();
    while transaction("rewrapping data keys", rotation::is_due)? {
        let size = gucs::rewrap_batch_size();
        let batch = transaction("rewrapping data keys", || rotation::rewrap(size, &mut position))?;
        let stuck = batch.rewrapped == 0 && batch.remaining.is_some();
        if stuck && transaction("rewrapping data keys", rotation::is_due)? {
            // What keeps it from going on is written down; the launcher comes back.
            return Err(Error::conflict("rotation cannot be finished yet"));
        }
        pause(gucs::rewrap_pause())?;
        if BackgroundWorker::sighup_received() {
            // SAFETY: the standard reaction of a worker to SIGHUP.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
    }
    Ok(())
}

/// Pauses, and leaves when somebody wants the database: DROP DATABASE waits five seconds for others.
fn pause(length: Duration) -> Result<()> {
    const SLICE: Duration = Duration::from_secs(1);
    let mut left = length.max(Duration::from_millis(1));
    while !left.is_zero() {
        let slice = left.min(SLICE);
        if !BackgroundWorker::wait_latch(Some(slice)) {
            stop();
        }
        left -= slice;
        if transaction("rewrapping data keys", || Ok(server::database_is_wanted()))? {
            stop();
        }
    }
    Ok(())
}

/// What keeps the work from going on is written where kek_status() shows it.
fn report(refusal: &Refusal) -> Result<()> {
    let Some(job) = rotation::running()? else {
        return Ok(());
    };
    let text = match &refusal.detail {
        Some(detail) => format!("{}: {detail}", refusal.message),
        None => String::from(refusal.message),
    };
    if job.last_error.is_some() {
        return Ok(()); // told already, and more exactly
    }
    rotation::report_failure(&job, Some(&text))
}
