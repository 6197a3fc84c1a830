//! What the writer of a queue does: it takes records and says which are durable.

use super::{REPEATED_WITHIN, nobody, queue_of, read, settle, write};
use crate::{
    pg::server,
    shmem::{board, ring::REPEATS},
};
use pgrx::pg_sys;
use std::sync::atomic::Ordering;

/// This process is the writer of a database from now on; `None` if it has one, or there is no room.
pub fn attach(database: u32) -> Option<usize> {
    // SAFETY: this process's own id and latch.
    let (pid, latch) = unsafe { (pg_sys::MyProcPid, pg_sys::MyLatch as usize) };
    let queue = write(|state, ring| {
        let queue = queue_of(state, ring, database)?;
        let desk = &mut state.desks[queue];
        if desk.writer != 0 {
            return None;
        }
        desk.writer = pid;
        desk.latch = latch;
        desk.asleep = false;
        Some(queue)
    })?;
    broadcast(queue);
    Some(queue)
}

/// This process is not the writer any more.
pub fn detach(queue: usize) {
    write(|state, _| {
        state.desks[queue].writer = 0;
        state.desks[queue].latch = 0;
    });
    board::wake();
}

/// What waits in a queue.
pub struct Waiting {
    /// Names the queue.
    pub ring: i64,
    /// Position after the last of the records.
    pub position: u64,
    /// Encoded records, oldest first.
    pub records: Vec<Vec<u8>>,
    /// The last seal that was made here since the server started.
    pub last_seal: i64,
    /// Somebody asked to look at what is not in the ring.
    pub asked: bool,
}

/// Up to `limit` records that wait; whoever asks for something from now on is not answered by them.
pub fn waiting(queue: usize, limit: u64, installation: u32) -> Waiting {
    write(|state, ring| {
        let desk = &mut state.desks[queue];
        desk.taken = desk.asked;
        let asked = desk.asked != desk.answered;
        let queue = &mut ring.queues[queue];
        if queue.installation != installation {
            queue.installation = installation;
            queue.last_seal = 0;
        }
        let from = queue.durable.load(Ordering::Acquire);
        let position = queue.head.min(from + limit);
        Waiting {
            ring: queue.id,
            position,
            records: (from..position).map(|at| queue.at(at).to_vec()).collect(),
            last_seal: queue.last_seal,
            asked,
        }
    })
}

/// All up to `position` is committed; `more`: of what was asked for something is left.
pub fn complete(queue: usize, position: u64, last_seal: Option<i64>, more: bool) {
    write(|state, ring| {
        let known = &mut ring.queues[queue];
        let position = position.clamp(known.durable.load(Ordering::Acquire), known.head);
        known.durable.store(position, Ordering::Release);
        if let Some(seal) = last_seal {
            known.last_seal = seal;
        }
        let desk = &mut state.desks[queue];
        desk.failures = 0;
        if !more {
            desk.answered = desk.taken;
        }
    });
    broadcast(queue);
}

/// The writer is going to sleep: true if there is nothing to do.
pub fn fall_asleep(queue: usize) -> bool {
    write(|state, ring| {
        let desk = &state.desks[queue];
        let idle = ring.queues[queue].depth() == 0 && desk.asked == desk.answered;
        state.desks[queue].asleep = idle;
        idle
    })
}

/// Whether the writer may leave: nothing waits and nothing is counted.
pub fn is_empty(queue: usize) -> bool {
    read(|state, ring| {
        let (desk, queue) = (&state.desks[queue], &ring.queues[queue]);
        let counted = queue.repeats.iter().any(|repeat| repeat.count > 0);
        queue.depth() == 0 && desk.asked == desk.answered && !counted
    })
}

/// Whether somebody waits for the writer's commit.
pub fn is_awaited(queue: usize) -> bool {
    // Versions of PostgreSQL mark the end of the list in different ways.
    let nobody = nobody().desks[queue].waiters.wakeup.head;
    read(|state, _| {
        // SAFETY: an integer in shared memory. Waiters change it under a lock of their own, so what is read may be
        // a moment old; that is good enough to decide whether to gather more.
        let first = unsafe { (&raw const state.desks[queue].waiters.wakeup.head).read_volatile() };
        first != nobody
    })
}

/// Records repeats of failures whose minute is over, or all of them.
pub fn settle_repeats(queue: usize, all: bool) {
    let now = server::uptime();
    write(|_, ring| {
        let queue = &mut ring.queues[queue];
        for place in 0..REPEATS {
            let repeat = &queue.repeats[place];
            if repeat.key != 0 && (all || repeat.since <= now - REPEATED_WITHIN) {
                settle(queue, place);
            }
        }
    });
}

fn broadcast(queue: usize) {
    let variable = read(|state, _| (&raw const state.desks[queue].waiters).cast_mut());
    // SAFETY: a condition variable in shared memory.
    unsafe { pg_sys::ConditionVariableBroadcast(variable) };
}
