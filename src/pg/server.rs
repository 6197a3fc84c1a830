//! State of the server and of the transaction.

use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::{
    ffi::CStr,
    sync::atomic::{AtomicBool, Ordering},
};

/// 25006 on a standby and in a read-only transaction.
pub fn require_writable() -> Result<()> {
    // SAFETY: reads backend state.
    let read_only = unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() };
    if read_only { Err(Error::read_only()) } else { Ok(()) }
}

/// Whether the server is a standby, or still recovering.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Something that is to be done once when a transaction commits, however often it is asked for.
pub struct AtCommit(AtomicBool);

impl AtCommit {
    /// Nothing is asked for yet.
    pub const fn unasked() -> Self {
        Self(AtomicBool::new(false))
    }
}

/// Does `work`, which must not fail, when the transaction is committed.
pub fn at_commit(
    once: &'static AtCommit,
    work: impl FnOnce() + Send + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static,
) {
    if once.0.swap(true, Ordering::Relaxed) {
        return;
    }
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, move || {
        once.0.store(false, Ordering::Relaxed);
        work();
    });
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Abort, move || {
        once.0.store(false, Ordering::Relaxed);
    });
}

/// Lets a cancelled query or a shutdown through.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// A point in time as ISO 8601 in UTC.
pub fn iso(time: i64) -> String {
    let (seconds, micros) = (time.div_euclid(1_000_000), time.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (mut year, mut month, mut day) = (0, 0, 0);
    // SAFETY: plain arithmetic of PostgreSQL's; its days count from 2000-01-01.
    unsafe {
        let julian = days as i32 + pg_sys::POSTGRES_EPOCH_JDATE as i32;
        pg_sys::j2date(julian, &mut year, &mut month, &mut day);
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Whether the transaction sees the state of its start (REPEATABLE READ, SERIALIZABLE).
pub fn snapshot_is_fixed() -> bool {
    // SAFETY: reads backend state.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// The database of this backend.
pub fn database() -> u32 {
    // SAFETY: reads backend state.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

/// The name of this database; `None` once it is dropped. For use in a transaction.
pub fn database_name() -> Option<String> {
    // SAFETY: looks it up in the catalog; null or a C string, copied at once.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// The data directory.
pub fn data_directory() -> String {
    // SAFETY: set before any backend runs, and never changed.
    unsafe { CStr::from_ptr(pg_sys::DataDir) }.to_string_lossy().into_owned()
}

/// Where PostgreSQL keeps files that do not depend on the machine, control files of extensions among them.
pub fn share_directory() -> String {
    let mut path = [0; pg_sys::MAXPGPATH as usize];
    // SAFETY: writes a C string of at most MAXPGPATH bytes.
    unsafe {
        pg_sys::get_share_path((&raw const pg_sys::my_exec_path).cast(), path.as_mut_ptr());
        CStr::from_ptr(path.as_ptr()).to_string_lossy().into_owned()
    }
}

/// The process id of the postmaster.
pub fn postmaster() -> i32 {
    // SAFETY: reads process state.
    unsafe { pg_sys::PostmasterPid }
}

/// Now, in microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// A clock that nobody can set, in microseconds since the host started; the same in every process. For
/// everything that is only waited for.
pub fn uptime() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: reads the clock into a place of our own; every Linux has this one.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// When this process, or the postmaster before it started this process, last read the settings anew.
pub fn reloaded() -> i64 {
    // SAFETY: reads process state.
    unsafe { pg_sys::PgReloadTime }
}

/// Waits, and lets a cancelled query or a shutdown through.
pub fn pause(milliseconds: i64) {
    // SAFETY: the standard wait of a backend; an interrupt raises an ERROR through pgrx's guard.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// A setting of the session by name; `None` if it is not set or empty.
pub fn setting(name: &CStr) -> Option<String> {
    // SAFETY: missing_ok; the string is valid until the setting changes, and is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() {
            return None;
        }
        let text = CStr::from_ptr(value).to_string_lossy().into_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// Whether `bytes` can be a `text` here: valid in the database's encoding, without NUL.
pub fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// Whether somebody is dropping, renaming or copying this database, and waits for others to leave it.
/// For use in a transaction.
pub fn database_is_wanted() -> bool {
    // SAFETY: the lock that every new connection takes for a moment, asked for without waiting; it is
    // released at the end of the transaction.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: 0,
            locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
            locktag_field3: database(),
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        let mode = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        pg_sys::LockAcquire(&tag, mode, false, true)
            == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}
