//! Audit records on their way from the backends to their database's writer.
//!
//! The records are in the [`Ring`]; who writes and who waits is in PostgreSQL's shared memory, which is
//! new after a crash restart. One lock over both, held for a few copies, never across SPI, a wait, or
//! anything that can raise an ERROR. `durable` alone is also read without it. Here is what is shared; who
//! uses it has a module each.

mod backends;
mod events;
mod launcher;
mod status;
mod writer;

pub use super::ring::Event;
pub use backends::*;
pub use events::*;
pub use launcher::*;
pub use status::*;
pub use writer::*;

use super::{
    board,
    ring::{self, QUEUES, Queue, Ring},
};
use crate::pg::server;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, pg_sys, prelude::*};
use std::{io, sync::atomic::Ordering};

/// Records that a queue has room for.
pub const ROOM: u64 = ring::SLOTS;

/// How long repeats of a failure are counted before they are recorded, in microseconds.
const REPEATED_WITHIN: i64 = 60_000_000;

/// The writer of a queue.
#[derive(Clone, Copy)]
struct Desk {
    /// Its process; 0: there is none.
    writer: i32,
    /// Its latch, as an address valid in every process.
    latch: usize,
    /// It sleeps, and wants to be woken up for anything.
    asleep: bool,
    /// How often somebody said that there is something to do that is not in the ring (records of
    /// committed transactions, an event of the server), and what of it is taken and done.
    asked: u64,
    taken: u64,
    answered: u64,
    /// When it was last started, and how often in a row it committed nothing.
    started: i64,
    failures: u32,
    /// Who waits for it.
    waiters: pg_sys::ConditionVariable,
}

#[derive(Clone, Copy)]
struct State {
    desks: [Desk; QUEUES],
}

// SAFETY: plain data; `latch` is an address in PostgreSQL's own shared memory, and the condition
// variables are where they will be used.
unsafe impl PGRXSharedMemory for State {}

// SAFETY: no other tranche has this name.
static STATE: PgLwLock<State> = unsafe { PgLwLock::new(c"meshhook_secrets_audit") };

/// Makes the ring and its state. Called once, in the postmaster, while it preloads us.
pub fn init() -> io::Result<()> {
    ring::create()?;
    pg_shmem_init!(STATE = nobody());
    Ok(())
}

fn nobody() -> State {
    let mut desk = Desk {
        writer: 0,
        latch: 0,
        asleep: false,
        asked: 0,
        taken: 0,
        answered: 0,
        started: 0,
        failures: 0,
        waiters: pg_sys::ConditionVariable::default(),
    };
    // SAFETY: an initialised condition variable can be copied while nobody uses it.
    unsafe { pg_sys::ConditionVariableInit(&raw mut desk.waiters) };
    State { desks: [desk; QUEUES] }
}

/// Whether there is a ring: only where the library was loaded at server start.
pub fn exists() -> bool {
    !ring::get().is_null()
}

fn read<T>(reader: impl FnOnce(&State, &Ring) -> T) -> T {
    let state = STATE.share();
    // SAFETY: callers have made sure that it exists; it is only written under the exclusive lock.
    reader(&state, unsafe { &*ring::get() })
}

fn write<T>(writer: impl FnOnce(&mut State, &mut Ring) -> T) -> T {
    let mut state = STATE.exclusive();
    // SAFETY: as in `read`; the exclusive lock makes this the only reference.
    writer(&mut state, unsafe { &mut *ring::get() })
}

/// The queue of a database; a new one if there is none and room for one.
fn queue_of(state: &mut State, ring: &mut Ring, database: u32) -> Option<usize> {
    if let Some(known) = ring.queues.iter().position(|queue| queue.database == database) {
        return Some(known);
    }
    let idle = |index: &usize| {
        let (queue, desk) = (&ring.queues[*index], &state.desks[*index]);
        queue.depth() == 0 && desk.writer == 0 && desk.asked == desk.answered
    };
    let counts = |index: &usize| ring.queues[*index].repeats.iter().any(|repeat| repeat.count > 0);
    // What is merely counted goes before the records of whoever needs a queue now.
    let free = (0..QUEUES)
        .find(|index| ring.queues[*index].database == 0)
        .or_else(|| (0..QUEUES).find(|index| idle(index) && !counts(index)))
        .or_else(|| (0..QUEUES).find(idle))?;
    let queue = &mut ring.queues[free];
    clear(queue);
    queue.id = meshhook_secrets_core::random::uuid().map_or_else(
        |_| server::now(),
        |id| i64::from_le_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[8], id[9]]),
    );
    // Last: whoever is killed before this has taken nothing.
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    queue.database = database;
    let desk = &mut state.desks[free];
    desk.answered = desk.asked;
    desk.started = 0;
    desk.failures = 0;
    Some(free)
}

fn clear(queue: &mut Queue) {
    queue.database = 0;
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    queue.id = 0;
    queue.head = 0;
    queue.durable.store(0, Ordering::Release);
    queue.lost = 0;
    queue.last_seal = 0;
    queue.witnessed = 0;
    for repeat in &mut queue.repeats {
        repeat.key = 0;
        repeat.count = 0;
    }
}

/// Records the repeats that were counted; false if there is no room.
fn settle(queue: &mut Queue, place: usize) -> bool {
    let repeat = &mut queue.repeats[place];
    if repeat.count > 0 {
        let mut record = repeat.record().to_vec();
        // The number of times is at the end of the encoding.
        let length = record.len();
        if let Some(times) = length.checked_sub(4).and_then(|at| record.get_mut(at..)) {
            times.copy_from_slice(&repeat.count.to_le_bytes());
        }
        if queue.push(&record).is_none() {
            return false;
        }
    }
    let repeat = &mut queue.repeats[place];
    repeat.key = 0;
    repeat.count = 0;
    true
}

/// Whom to wake up, once the lock is released.
enum Wake {
    Nobody,
    Writer(usize),
    Launcher,
}

fn whom(desk: &mut Desk, urgent: bool) -> Wake {
    if desk.writer == 0 {
        Wake::Launcher
    } else if urgent || desk.asleep {
        desk.asleep = false;
        Wake::Writer(desk.latch)
    } else {
        Wake::Nobody
    }
}

impl Wake {
    fn up(self) {
        match self {
            Wake::Nobody => {}
            // SAFETY: latches of processes live in shared memory and stay valid when their owner is
            // gone; a latch that is set for nobody does nothing.
            Wake::Writer(latch) => unsafe { pg_sys::SetLatch(latch as *mut pg_sys::Latch) },
            Wake::Launcher => board::wake(),
        }
    }
}
