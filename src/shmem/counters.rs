//! Counters of each database since server start, and its last error: SQLSTATE and time, never a text.
//!
//! Counting takes no lock: a backend finds the place of its database once and then adds to an atomic.
//! A place is never taken back, so a database beyond the first [`DATABASES`] since server start is not
//! counted.

use crate::pg::server;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, prelude::*};
use std::sync::{
    OnceLock,
    atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

/// Databases that are counted.
const DATABASES: usize = 1024;

/// What is counted.
#[derive(Clone, Copy)]
pub enum Count {
    /// A value was stored.
    Put,
    /// A value was revealed.
    Get,
    /// A call was refused because the caller has no right.
    Denial,
    /// A call failed for any other reason than the caller's own mistake.
    Failure,
}

/// The counters of a database.
#[derive(Default)]
pub struct Counters {
    pub puts: u64,
    pub gets: u64,
    pub denials: u64,
    pub failures: u64,
    pub last_error: Option<LastError>,
}

/// The last error of a database.
pub struct LastError {
    pub sqlstate: String,
    /// Microseconds since 2000-01-01 UTC, to the second.
    pub at: i64,
}

/// The place of one database. All zeros: free, and nothing counted.
struct Place {
    database: AtomicU32,
    counts: [AtomicU64; 4],
    /// See [`pack`].
    last_error: AtomicU64,
}

impl Place {
    const fn free() -> Self {
        Self {
            database: AtomicU32::new(0),
            counts: [const { AtomicU64::new(0) }; 4],
            last_error: AtomicU64::new(0),
        }
    }
}

struct Table {
    places: [Place; DATABASES],
}

// SAFETY: atomics without any pointer.
unsafe impl PGRXSharedMemory for Table {}

// SAFETY: no other tranche has this name.
static TABLE: PgLwLock<Table> = unsafe { PgLwLock::new(c"meshhook_secrets_counters") };

/// Makes the table. Called once, in the postmaster, while it preloads us.
pub fn init() {
    pg_shmem_init!(TABLE = Table { places: [const { Place::free() }; DATABASES] });
}

/// Counts something in this database.
pub fn count(what: Count, times: u64) {
    if let Some(place) = place() {
        place.counts[what as usize].fetch_add(times, Relaxed);
    }
}

/// Remembers that a call in this database has just failed with this SQLSTATE.
pub fn failed(sqlstate: &str) {
    if let (Some(place), Some(packed)) = (place(), pack(sqlstate, server::now())) {
        place.last_error.store(packed, Relaxed);
    }
}

/// The counters of this database.
pub fn read() -> Counters {
    let Some(place) = place() else {
        return Counters::default();
    };
    let count = |what: Count| place.counts[what as usize].load(Relaxed);
    Counters {
        puts: count(Count::Put),
        gets: count(Count::Get),
        denials: count(Count::Denial),
        failures: count(Count::Failure),
        last_error: unpack(place.last_error.load(Relaxed)),
    }
}

/// The place of this database, found at the first call in this process.
fn place() -> Option<&'static Place> {
    static PLACE: OnceLock<Option<&'static Place>> = OnceLock::new();
    if !super::keyring::is_preloaded() {
        return None;
    }
    *PLACE.get_or_init(|| find(server::database()))
}

fn find(database: u32) -> Option<&'static Place> {
    if database == 0 {
        return None;
    }
    let lock = TABLE.share();
    let table: &Table = std::ops::Deref::deref(&lock);
    // SAFETY: the table stays where it is for as long as this process lives, and after `init` it is
    // only changed through its atomics, so a reference may outlive the lock.
    let table: &'static Table = unsafe { &*std::ptr::from_ref(table) };
    // A place that was taken stays so, hence the search may stop at the first free one.
    table.places.iter().find(|place| {
        match place.database.compare_exchange(0, database, SeqCst, SeqCst) {
            Ok(_) => true,
            Err(taken) => taken == database,
        }
    })
}

const CHARACTERS: u64 = 36;
const SQLSTATES: u64 = CHARACTERS.pow(5);

/// SQLSTATE and second in one number, so that no reader sees the one without the other. 0 is none.
fn pack(sqlstate: &str, at: i64) -> Option<u64> {
    if sqlstate.len() != 5 {
        return None;
    }
    let code = sqlstate.chars().try_fold(0, |code, character| {
        character.to_digit(36).map(|digit| code * CHARACTERS + u64::from(digit))
    })?;
    Some(u64::try_from(at / 1_000_000).ok()? * SQLSTATES + code)
}

fn unpack(packed: u64) -> Option<LastError> {
    if packed == 0 {
        return None;
    }
    let mut code = packed % SQLSTATES;
    let mut sqlstate = [0_u8; 5];
    for byte in sqlstate.iter_mut().rev() {
        let digit = char::from_digit((code % CHARACTERS) as u32, 36)?;
        *byte = digit.to_ascii_uppercase() as u8;
        code /= CHARACTERS;
    }
    let sqlstate = String::from_utf8_lossy(&sqlstate).into_owned();
    Some(LastError { sqlstate, at: (packed / SQLSTATES) as i64 * 1_000_000 })
}
