//! What backends do: they push records and wait for them.

use super::{REPEATED_WITHIN, Wake, exists, queue_of, read, settle, whom, write};
use crate::{
    error::Result,
    pg::{raise::catch, server},
    shmem::{
        board,
        ring::{self, REPEATS},
    },
};
use pgrx::pg_sys;
use std::sync::atomic::Ordering;

/// Where a record went.
#[derive(Clone, Copy)]
pub struct Place {
    queue: usize,
    position: u64,
}

/// Adds a record; nothing if there is no room. `urgent`: somebody is going to wait for it.
pub fn push(database: u32, record: &[u8], urgent: bool) -> Option<Place> {
    let (place, wake) = write(|state, ring| {
        let queue = queue_of(state, ring, database)?;
        let position = ring.queues[queue].push(record)?;
        Some((Place { queue, position }, whom(&mut state.desks[queue], urgent)))
    })?;
    wake.up();
    Some(place)
}

/// Adds a record of a failure. Repeats within a minute are counted, and recorded as one when it is over.
/// False if there was no room. `begin`: also if nothing was recorded in the database since the server started.
pub fn push_failure(database: u32, key: u64, record: &[u8], begin: bool) -> bool {
    let (key, now) = (key.max(1), server::uptime());
    let (pushed, wake) = write(|state, ring| {
        let found = match begin {
            true => queue_of(state, ring, database),
            false => ring.queues.iter().position(|queue| queue.database == database),
        };
        let Some(index) = found else {
            return (false, Wake::Nobody);
        };
        let queue = &mut ring.queues[index];
        let known = queue.repeats.iter().position(|repeat| repeat.key == key);
        if let Some(known) = known
            && queue.repeats[known].since > now - REPEATED_WITHIN
        {
            let repeat = &mut queue.repeats[known];
            repeat.again(record);
            return (true, Wake::Nobody);
        }
        // In the place of an earlier one, or of the oldest.
        let oldest = (0..REPEATS).min_by_key(|place| match queue.repeats[*place].key {
            0 => i64::MIN,
            _ => queue.repeats[*place].since,
        });
        let place = known.or(oldest).unwrap_or(0);
        if !settle(queue, place) || queue.push(record).is_none() {
            queue.lost += 1;
            return (false, Wake::Nobody);
        }
        let repeat = &mut queue.repeats[place];
        repeat.key = key;
        repeat.since = now;
        repeat.count = 0;
        (true, whom(&mut state.desks[index], false))
    });
    wake.up();
    pushed
}

/// There is something to do for the writer that is not in the ring.
pub fn look(database: u32) {
    if exists() {
        ask(database);
    }
}

fn ask(database: u32) -> Option<(usize, u64, u64)> {
    let (asked, wake) = write(|state, ring| {
        let queue = queue_of(state, ring, database)?;
        let desk = &mut state.desks[queue];
        desk.asked += 1;
        Some(((queue, desk.asked, ring.queues[queue].head), whom(desk, true)))
    })?;
    wake.up();
    Some(asked)
}

/// Waits until the record is committed; false if that takes longer than until `deadline`, by
/// [`server::uptime`] as everywhere here.
pub fn wait_until_durable(place: Place, deadline: i64) -> Result<bool> {
    // SAFETY: the ring exists, since the record is in it; `durable` is atomic.
    let durable = unsafe { &raw const (*ring::get()).queues[place.queue].durable };
    // SAFETY: as above; the mapping is never removed.
    wait(place.queue, deadline, || unsafe { (*durable).load(Ordering::Acquire) >= place.position })
}

/// Waits until the record's database has a writer.
pub fn wait_until_attended(place: Place, deadline: i64) -> Result<bool> {
    wait(place.queue, deadline, || read(|state, _| state.desks[place.queue].writer != 0))
}

/// Has the writer write all that there is by now, and waits for it.
pub fn flush(database: u32, deadline: i64) -> Result<bool> {
    let Some((queue, asked, head)) = ask(database) else {
        return Ok(false);
    };
    wait(queue, deadline, || {
        read(|state, ring| {
            let durable = ring.queues[queue].durable.load(Ordering::Acquire);
            durable >= head && state.desks[queue].answered >= asked
        })
    })
}

/// Waits for room in a database's queue.
pub fn wait_for_room(database: u32, deadline: i64) -> Result<bool> {
    let queue = read(|_, ring| ring.queues.iter().position(|queue| queue.database == database));
    match queue {
        Some(queue) => {
            wait(queue, deadline, || read(|_, ring| ring.queues[queue].depth() < ring::SLOTS))
        }
        None => Ok(false),
    }
}

// Undecorated, for use under `catch` only.
unsafe extern "C-unwind" {
    fn ConditionVariablePrepareToSleep(variable: *mut pg_sys::ConditionVariable);
    fn ConditionVariableTimedSleep(
        variable: *mut pg_sys::ConditionVariable,
        milliseconds: std::ffi::c_long,
        event: u32,
    ) -> bool;
}

/// Waits until `done`, which the writer's signs make worth asking again. A cancelled query ends it.
fn wait(queue: usize, deadline: i64, done: impl Fn() -> bool) -> Result<bool> {
    /// The writer is looked after this often, in microseconds.
    const LOOK: i64 = 250_000;
    if done() {
        return Ok(true);
    }
    let variable = read(|state, _| (&raw const state.desks[queue].waiters).cast_mut());
    // SAFETY: the condition variable is in shared memory and stays there; an ERROR out of the sleep is
    // caught, and PostgreSQL ends the sleep when it aborts.
    unsafe {
        catch(|| ConditionVariablePrepareToSleep(variable))?;
        let result = loop {
            if done() {
                break true;
            }
            let left = deadline - server::uptime();
            if left <= 0 {
                break false;
            }
            let milliseconds = left.min(LOOK) / 1000 + 1;
            if catch(|| {
                ConditionVariableTimedSleep(variable, milliseconds, pg_sys::PG_WAIT_EXTENSION)
            })? {
                let attended = read(|state, _| state.desks[queue].writer != 0);
                if !attended {
                    board::wake();
                }
            }
        };
        pg_sys::ConditionVariableCancelSleep();
        Ok(result)
    }
}
