//! The audit writer of one database: commits what backends put into the ring, seals it, and wakes
//! whoever waits for it. The launcher starts it when there is something to write. It ends when there
//! has been nothing for a while, or somebody wants the database; told to stop, it first writes what is
//! there until no client is left. After an error it ends too: what it had not committed is still in the
//! ring, and the launcher starts it again, later each time.

use super::{interrupt_waits_for_standbys, prepare_session, stop, transaction};
use crate::{
    error::Result,
    pg::{catalog, raise, raise::Thrown, server, session},
    service::audit::{
        line,
        writer::{self, Done, Memory},
    },
    shmem::audit as ring,
};
use meshhook_secrets_core::audit::Record;
use pgrx::{
    bgworkers::{BackgroundWorker, SignalWakeFlags},
    pg_sys,
    prelude::*,
};
use std::time::Duration;

/// Without anything to write it stays this long.
const LINGER: i64 = 10_000_000;
/// While it lingers it looks this often whether somebody wants the database.
const LOOK: Duration = Duration::from_millis(250);
/// Where nobody waits for a commit, records are gathered this long.
const GATHER: Duration = Duration::from_millis(10);
/// After it was told to stop, clients get this long to leave.
const DRAIN: i64 = 30_000_000;

/// Has the postmaster, which ends last, log what no writer could write: a writer whose table is out of
/// order, or one that was not there just then, cannot be started any more while the server stops.
pub fn init() {
    // SAFETY: the callback takes nothing; processes that the postmaster starts drop it.
    unsafe { pg_sys::on_proc_exit(Some(last_words), pg_sys::Datum::null()) };
}

unsafe extern "C-unwind" fn last_words(_code: i32, _argument: pg_sys::Datum) {
    // SAFETY: reads process state.
    if unsafe { !pg_sys::IsUnderPostmaster } {
        log_lost(&ring::left_at_exit());
    }
}

/// The writer's main function; the argument is the database's OID.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn meshhook_secrets_audit_writer(argument: pg_sys::Datum) {
    let database = argument.value() as u32;
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    interrupt_waits_for_standbys();
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(database)), None);
    prepare_session();
    // SAFETY: a setting of this session. Triggers that others may have put on our tables are not run.
    unsafe { set(c"session_replication_role", c"replica") };
    session::be_system();
    let Some(queue) = ring::attach(database) else {
        return;
    };
    // SAFETY: the callback takes the queue's number; it runs in this process before it leaves shared
    // memory, however it ends.
    unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(queue)) };
    if let Err(thrown) = run(queue).map_err(Thrown::from) {
        // SAFETY: nothing with a destructor is left in this frame. The transaction is still open, and
        // ends with the process.
        unsafe { thrown.throw() }
    }
}

unsafe extern "C-unwind" fn leave(_code: i32, queue: pg_sys::Datum) {
    ring::detach(queue.value());
}

/// # Safety
/// The names are those of settings, and the value fits.
unsafe fn set(name: &std::ffi::CStr, value: &std::ffi::CStr) {
    // SAFETY: see above.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

/// Writes until there is nothing to write. Only an error of PostgreSQL's comes out.
fn run(queue: usize) -> Result<()> {
    let mut memory = Memory::default();
    let mut busy = server::uptime();
    let mut stopping: Option<i64> = None;
    let mut looked = i64::MIN / 2;
    let mut leaving = false;
    loop {
        if BackgroundWorker::sighup_received() {
            // SAFETY: the standard reaction of a worker to SIGHUP.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        let now = server::uptime();
        if BackgroundWorker::sigterm_received() {
            stopping.get_or_insert_with(|| {
                // A standby that is away must not keep the server from stopping.
                // SAFETY: a setting of this session.
                unsafe { set(c"synchronous_commit", c"local") };
                now
            });
        }
        // Whoever leaves takes what was counted along: nobody may be started after it any more.
        let look = now - looked > LOOK.as_micros() as i64;
        ring::settle_repeats(queue, leaving || stopping.is_some());
        let done = match transaction("writing audit records", || batch(queue, &mut memory, look))? {
            Some(done) => done,
            // The extension is not there (any more): nobody can write what is left.
            None => return give_up(queue),
        };
        ring::complete(queue, done.position, done.last_seal, done.more);
        if let Some(seal) = &done.witness {
            raise::log_for_sure(&format!("meshhook_secrets audit seal: {seal}"));
        }
        if done.records > 0 {
            busy = now;
        }
        if let Some(since) = stopping {
            if (clients() == 0 && ring::is_empty(queue)) || now - since > DRAIN {
                stop();
            }
            pause(Duration::from_millis(10));
            continue;
        }
        if leaving && ring::is_empty(queue) {
            return Ok(());
        }
        if done.more {
            continue;
        }
        leaving = now - busy > LINGER;
        // Asked for in turn by whoever drops, renames or copies the database, which waits for us.
        if look {
            looked = now;
            leaving |= transaction("idle", || Ok(server::database_is_wanted()))?;
        }
        if leaving {
            continue;
        }
        if ring::fall_asleep(queue) {
            pause(LOOK);
        } else if !ring::is_awaited(queue) {
            pause(GATHER);
        }
    }
}

fn batch(queue: usize, memory: &mut Memory, look: bool) -> Result<Option<Done>> {
    if !catalog::extension_stays_installed() {
        return Ok(None);
    }
    // SAFETY: what is waited for must be on disk, whatever synchronous_commit says by now.
    unsafe { pg_sys::ForceSyncCommit() };
    writer::batch(queue, memory, look).map(Some)
}

/// What nobody can write any more goes to the server log.
fn give_up(queue: usize) -> Result<()> {
    let waiting = ring::waiting(queue, ring::ROOM, 0);
    log_lost(&waiting.records);
    ring::complete(queue, waiting.position, None, false);
    Ok(())
}

/// Records as lines of the server log.
pub fn log_lost(records: &[Vec<u8>]) {
    for record in records.iter().filter_map(|bytes| Record::decode(bytes).ok()) {
        raise::log_for_sure(&line(&record));
    }
}

/// The clients that are connected to this database.
fn clients() -> i32 {
    // SAFETY: counts entries of the process array.
    unsafe { pg_sys::CountDBConnections(pg_sys::MyDatabaseId) }
}

/// Sleeps until the latch is set, or for so long. A SIGTERM is noticed by the caller.
fn pause(length: Duration) {
    // SAFETY: the standard wait of a worker.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            length.as_millis() as i64,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}
