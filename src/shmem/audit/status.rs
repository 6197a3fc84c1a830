//! Who asks how things are.

use super::{exists, read, write};
use crate::shmem::ring::Queue;
use std::sync::atomic::Ordering;

/// The last seal that was made in a database since the server started; 0 if none is known.
pub fn last_seal(database: u32, installation: u32) -> i64 {
    if !exists() {
        return 0;
    }
    read(|_, ring| {
        let mut queues = ring.queues.iter();
        let same =
            |queue: &&Queue| queue.database == database && queue.installation == installation;
        queues.find(same).map_or(0, |queue| queue.last_seal)
    })
}

/// Whether a seal is to be shown in the server log again, as it is now and then.
pub fn is_witness_due(queue: usize, now: i64) -> bool {
    const EVERY: i64 = 600_000_000;
    write(|_, ring| {
        let due = ring.queues[queue].witnessed + EVERY <= now;
        if due {
            ring.queues[queue].witnessed = now;
        }
        due
    })
}

/// How a database's queue is.
#[derive(Default)]
pub struct Status {
    /// Records that wait.
    pub depth: i64,
    /// When the oldest of them happened.
    pub oldest: Option<i64>,
    /// Whether there is a writer.
    pub writer_running: bool,
    /// Failures that there was no room for since the server started; they are in the server log.
    pub lost: i64,
}

/// How the queue of a database is.
pub fn status(database: u32) -> Status {
    if !exists() {
        return Status::default();
    }
    read(|state, ring| {
        let Some(index) = ring.queues.iter().position(|queue| queue.database == database) else {
            return Status::default();
        };
        let queue = &ring.queues[index];
        let depth = queue.depth();
        let oldest = (depth > 0).then(|| queue.at(queue.durable.load(Ordering::Acquire)));
        Status {
            depth: depth as i64,
            oldest: oldest
                .and_then(|record| meshhook_secrets_core::audit::Record::decode(record).ok())
                .map(|record| record.time),
            writer_running: state.desks[index].writer != 0,
            lost: queue.lost as i64,
        }
    })
}
