//! The board: in which databases there is work, and when. Backends write on it, the launcher reads it
//! and starts a worker for a database whose time has come.
//!
//! One lock over all of it, held for a few copies, never across SPI or anything that can raise an
//! ERROR. It is no truth of its own: at server start the launcher looks into every database anew.

use crate::{error::Result, pg::server};
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, pg_sys, prelude::*};

/// Databases with work ahead at a time. A further one waits until the next server start, or until one
/// of its callers asks again.
const DATABASES: usize = 128;

/// What is to be done in a database.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// The database's OID; 0: free.
    database: u32,
    /// When.
    due: Due,
    /// How often in a row its worker ended without saying what is next.
    failures: u32,
    /// Counts what was posted, so that a worker's word about what it has seen does not wipe out what
    /// came later.
    posted: u64,
}

/// When something is to be done. What is only waited for does not go by the time of day: a clock that is set
/// back would put it off by as much.
#[derive(Clone, Copy)]
pub enum Due {
    /// At this time of day, in microseconds since 2000-01-01 UTC.
    Date(i64),
    /// At this [`server::uptime`].
    Uptime(i64),
}

impl Due {
    /// At once.
    const NOW: Self = Self::Uptime(0);

    /// After a pause in microseconds.
    pub fn after(pause: i64) -> Self {
        Self::Uptime(server::uptime() + pause)
    }

    /// How long until then, in microseconds; not above zero: it is time.
    fn wait(self) -> i64 {
        match self {
            Self::Date(at) => at.saturating_sub(server::now()),
            Self::Uptime(at) => at - server::uptime(),
        }
    }
}

impl Default for Due {
    fn default() -> Self {
        Self::NOW
    }
}

#[derive(Clone, Copy)]
struct Board {
    entries: [Entry; DATABASES],
    /// The launcher's latch, as an address valid in every process; 0 while there is no launcher.
    launcher: usize,
    /// The maintenance worker; 0 while there is none.
    maintenance: i32,
}

// SAFETY: plain data; `launcher` is an address in PostgreSQL's own shared memory.
unsafe impl PGRXSharedMemory for Board {}

// SAFETY: no other tranche has this name.
static BOARD: PgLwLock<Board> = unsafe { PgLwLock::new(c"meshhook_secrets_board") };

/// Makes the board. Called once, in the postmaster, while it preloads us.
pub fn init() {
    pg_shmem_init!(
        BOARD = Board { entries: [Entry::default(); DATABASES], launcher: 0, maintenance: 0 }
    );
}

/// Once this transaction is committed, there is work in the database.
pub fn wake_at_commit(database: u32) -> Result<()> {
    static WAKE: server::AtCommit = server::AtCommit::unasked();
    super::keyring::require_preloaded()?;
    server::at_commit(&WAKE, move || {
        post(database);
        wake();
    });
    Ok(())
}

/// The launcher signs on.
pub fn attach_launcher() {
    // SAFETY: this process's own latch.
    let latch = unsafe { pg_sys::MyLatch } as usize;
    BOARD.exclusive().launcher = latch;
}

/// This process is the maintenance worker, unless there is one: a launcher that was started anew does not
/// know of the one that its predecessor started.
pub fn sign_on() -> bool {
    // SAFETY: this process's own id.
    let pid = unsafe { pg_sys::MyProcPid };
    let mut board = BOARD.exclusive();
    if board.maintenance != 0 {
        return false;
    }
    board.maintenance = pid;
    true
}

/// The maintenance worker ends.
pub fn sign_off() {
    BOARD.exclusive().maintenance = 0;
    wake();
}

/// Whether there is a maintenance worker.
pub fn is_busy() -> bool {
    BOARD.share().maintenance != 0
}

/// There is work in the database now.
pub fn post(database: u32) {
    let mut board = BOARD.exclusive();
    let known = board.entries.iter().position(|entry| entry.database == database);
    let place = known.or_else(|| board.entries.iter().position(|entry| entry.database == 0));
    if let Some(place) = place {
        let posted = board.entries[place].posted.wrapping_add(1);
        board.entries[place] = Entry { database, due: Due::NOW, failures: 0, posted };
    }
}

/// What a worker of the database has to answer with [`done`]; asked before it looks for work.
pub fn posted(database: u32) -> u64 {
    let board = BOARD.share();
    let mut entries = board.entries.iter();
    entries.find(|entry| entry.database == database).map_or(0, |entry| entry.posted)
}

/// All that was posted up to `posted` is done; the next is due then, or there is nothing more.
pub fn done(database: u32, posted: u64, due: Option<Due>) {
    let mut board = BOARD.exclusive();
    let mut entries = board.entries.iter_mut();
    if let Some(entry) = entries.find(|entry| entry.database == database && entry.posted == posted)
    {
        *entry = match due {
            Some(due) => Entry { database, due, failures: 0, posted },
            None => Entry { posted, ..Entry::default() },
        };
    }
}

/// The database is gone.
pub fn clear(database: u32) {
    for entry in BOARD.exclusive().entries.iter_mut().filter(|entry| entry.database == database) {
        *entry = Entry::default();
    }
}

/// The longest pause after failures.
const LAST: i64 = 60_000_000;

/// The database whose time comes first, and how long until then in microseconds; not above zero: it has come.
pub fn next() -> Option<(u32, i64)> {
    let board = BOARD.share();
    let used = board.entries.iter().filter(|entry| entry.database != 0);
    used.map(|entry| (entry.database, entry.due.wait())).min_by_key(|(_, wait)| *wait)
}

/// A worker is being started for the database: unless it says something else, it is tried again, later
/// each time.
pub fn take(database: u32) {
    const FIRST: i64 = 1_000_000;
    let mut board = BOARD.exclusive();
    if let Some(entry) = board.entries.iter_mut().find(|entry| entry.database == database) {
        let pause = FIRST.saturating_mul(1 << entry.failures.min(20)).min(LAST);
        entry.due = Due::after(pause);
        entry.failures = entry.failures.saturating_add(1);
    }
}

/// Has the launcher look.
pub fn wake() {
    let launcher = BOARD.share().launcher;
    if launcher != 0 {
        // SAFETY: latches of processes live in shared memory and stay valid when their owner is
        // gone; a latch that is set for nobody does nothing.
        unsafe { pg_sys::SetLatch(launcher as *mut pg_sys::Latch) };
    }
}
