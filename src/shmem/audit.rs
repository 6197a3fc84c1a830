//! Audit records on their way from the backends to their database's writer.
//!
//! The records are in the [`Ring`]; who writes and who waits is in PostgreSQL's shared memory, which is
//! new after a crash restart. One lock over both, held for a few copies, never across SPI, a wait, or
//! anything that can raise an ERROR. `durable` alone is also read without it.

pub use super::ring::Event;
use super::{
    board,
    ring::{self, EVENTS, QUEUES, Queue, REPEATS, Ring},
};
use crate::{error::Result, pg::raise::catch, pg::server};
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

// --- Backends -------------------------------------------------------------------------------------

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
pub fn push_failure(database: u32, key: u64, record: &[u8], now: i64, begin: bool) -> bool {
    let key = key.max(1);
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
            repeat.count = repeat.count.saturating_add(1);
            repeat.record.put(record);
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

/// Records the repeats that were counted; false if there is no room.
fn settle(queue: &mut Queue, place: usize) -> bool {
    let repeat = &mut queue.repeats[place];
    if repeat.count > 0 {
        let mut record = repeat.record.get().to_vec();
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

/// Waits until the record is committed; false if that takes longer than until `deadline`.
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
            let left = deadline - server::now();
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

// --- Events of the server ---------------------------------------------------------------------------

/// Something happened to the server as a whole: every database that uses us records it.
pub fn server_event(action: &str, failed: bool, detail: &str) {
    if !exists() {
        return;
    }
    let wake = write(|state, ring| {
        let mut event = Event {
            time: server::now(),
            action: super::text::Text::EMPTY,
            failed,
            detail: super::text::Text::EMPTY,
        };
        event.action.set(action);
        event.detail.set(detail);
        ring.events[ring.happened % EVENTS] = event;
        ring.happened += 1;
        let mut wake = Vec::new();
        for (desk, queue) in state.desks.iter_mut().zip(&ring.queues) {
            if queue.database != 0 {
                desk.asked += 1;
                wake.push(whom(desk, true));
            }
        }
        wake
    });
    wake.into_iter().for_each(Wake::up);
}

/// The events of the server after `time`, oldest first.
pub fn server_events(time: i64) -> Vec<Event> {
    let mut events: Vec<Event> =
        read(|_, ring| ring.events.iter().take(ring.happened.min(EVENTS)).copied().collect());
    events.retain(|event| event.time > time);
    events.sort_by_key(|event| event.time);
    events
}

// --- The writer ---------------------------------------------------------------------------------------

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
    read(|state, _| state.desks[queue].waiters.wakeup.head != nobody)
}

/// Records repeats of failures whose minute is over, or all of them.
pub fn settle_repeats(queue: usize, now: i64, all: bool) {
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

// --- The launcher -------------------------------------------------------------------------------------

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
    // SAFETY: the only process left.
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

// --- Who asks how things are ----------------------------------------------------------------------------

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
