//! What the launcher does: it finds queues without a writer, and empties those that will have none.

use super::{REPEATED_WITHIN, clear, exists, read, settle, write};
use crate::shmem::ring::{self, Queue, REPEATS};
use std::sync::atomic::Ordering;

/// The databases that need a writer and have none, and when it may be started.
pub fn unattended() -> Vec<(u32, i64)> {
    const FIRST: i64 = 500_000;
    const LAST: i64 = 5_000_000;
    if !exists() {
        return Vec::new();
    }
    read(|state, ring| {
        let mut found = Vec::new();
        for (desk, queue) in state.desks.iter().zip(&ring.queues) {
            if queue.database == 0 || desk.writer != 0 {
                continue;
            }
            let pause = FIRST.saturating_mul(1 << desk.failures.min(10)).min(LAST);
            let earliest = if desk.failures == 0 { 0 } else { desk.started + pause };
            let counted = queue.repeats.iter().filter(|repeat| repeat.count > 0);
            if desk.asked > desk.answered || queue.depth() > 0 {
                found.push((queue.database, earliest));
            } else if let Some(since) = counted.map(|repeat| repeat.since).min() {
                found.push((queue.database, earliest.max(since + REPEATED_WITHIN)));
            }
        }
        found
    })
}

/// The launcher starts the writer of a database.
pub fn starting(database: u32, now: i64) {
    write(|state, ring| {
        for (desk, queue) in state.desks.iter_mut().zip(&ring.queues) {
            if queue.database == database {
                desk.started = now;
                desk.failures = desk.failures.saturating_add(1);
            }
        }
    });
}

/// Frees the queue of a database that is gone; the records that nobody can write any more.
pub fn abandon(database: u32) -> Vec<Vec<u8>> {
    write(|state, ring| {
        let mut left = Vec::new();
        for (desk, queue) in state.desks.iter_mut().zip(&mut ring.queues) {
            if queue.database == database && desk.writer == 0 {
                left.append(&mut empty(queue));
            }
        }
        left
    })
}

/// The records that nobody has written, once every other process is gone: asked by the postmaster when it
/// ends, and PostgreSQL's shared memory is gone too.
pub fn left_at_exit() -> Vec<Vec<u8>> {
    if !exists() {
        return Vec::new();
    }
    // SAFETY: the only process left; but for workers of a start that failed, which touch no queue: nobody could
    // connect, and the root key worker only writes events.
    let ring = unsafe { &mut *ring::get() };
    ring.queues.iter_mut().filter(|queue| queue.database != 0).flat_map(empty).collect()
}

/// Takes all that waits or is counted out of a queue, and frees it.
fn empty(queue: &mut Queue) -> Vec<Vec<u8>> {
    let mut left = Vec::new();
    let mut take = |queue: &mut Queue| {
        let from = queue.durable.load(Ordering::Acquire);
        left.extend((from..queue.head).map(|at| queue.at(at).to_vec()));
        queue.durable.store(queue.head, Ordering::Release);
    };
    take(queue);
    (0..REPEATS).for_each(|place| {
        settle(queue, place);
    });
    take(queue);
    clear(queue);
    left
}
