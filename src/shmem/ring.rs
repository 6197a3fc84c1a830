//! The memory that audit records wait in until their database's writer has committed them.
//!
//! A mapping of its own, made once in the postmaster: unlike PostgreSQL's shared memory it survives a
//! crash restart, so a record is lost only with the whole host. To be touched under the lock of
//! [`super::audit`] only. A process can be killed at any point: a record counts once `head` does.

use meshhook_secrets_core::audit::RECORD_MAX;
use std::{
    io, ptr,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering, compiler_fence},
};

/// Databases with records at a time.
pub const QUEUES: usize = 32;
/// Records of one database that can wait: about four megabytes.
pub const SLOTS: u64 = 2048;
/// Failures of one database whose repeats are being counted.
pub const REPEATS: usize = 64;
/// Events of the server that databases may not have recorded yet.
pub const EVENTS: usize = 32;

/// The whole mapping.
#[repr(C)]
pub struct Ring {
    /// One for each database that uses us.
    pub queues: [Queue; QUEUES],
    /// The latest events of the server as a whole.
    pub events: [Event; EVENTS],
    /// How many there ever were.
    pub happened: usize,
}

/// The records of one database.
#[repr(C)]
pub struct Queue {
    /// Its OID; 0: free.
    pub database: u32,
    /// Names this queue in the seals, so that a writer finds where it had got to.
    pub id: i64,
    /// Records pushed so far; record `n` is in slot `n % SLOTS`.
    pub head: u64,
    /// Records committed so far.
    pub durable: AtomicU64,
    /// Records that there was no room for.
    pub lost: u64,
    /// The installation of the extension that `last_seal` is of, by its OID.
    pub installation: u32,
    /// The last seal that was made.
    pub last_seal: i64,
    /// When a seal was last shown in the server log.
    pub witnessed: i64,
    /// Failures whose repeats are being counted.
    pub repeats: [Repeat; REPEATS],
    slots: [Slot; SLOTS as usize],
}

/// A failure that may be repeated.
#[repr(C)]
pub struct Repeat {
    /// What makes two of them the same; 0: free.
    pub key: u64,
    /// When it was first recorded.
    pub since: i64,
    /// How often it happened after that.
    pub count: i32,
    /// Which of the two is the latest one.
    latest: u32,
    records: [Slot; 2],
}

/// An encoded record.
#[repr(C)]
pub struct Slot {
    length: u16,
    bytes: [u8; RECORD_MAX],
}

/// Something that happened to the server as a whole.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Event {
    /// When.
    pub time: i64,
    /// What.
    pub action: super::text::Text<32>,
    /// Of which kind: it failed.
    pub failed: bool,
    /// More about it.
    pub detail: super::text::Text<200>,
}

impl Slot {
    /// Puts a record in; what is too long for any record is not one of ours.
    pub fn put(&mut self, record: &[u8]) {
        let length = record.len().min(RECORD_MAX);
        self.bytes[..length].copy_from_slice(&record[..length]);
        self.length = length as u16;
    }

    /// The record.
    pub fn get(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length).min(RECORD_MAX)]
    }
}

impl Repeat {
    /// It happened once more.
    pub fn again(&mut self, record: &[u8]) {
        // Beside the former one: whoever is killed meanwhile leaves that.
        let other = self.latest & 1 ^ 1;
        self.records[other as usize].put(record);
        compiler_fence(Ordering::SeqCst);
        self.latest = other;
        compiler_fence(Ordering::SeqCst);
        self.count = self.count.saturating_add(1);
    }

    /// The latest one, if it happened more than once.
    pub fn record(&self) -> &[u8] {
        self.records[(self.latest & 1) as usize].get()
    }
}

impl Queue {
    /// How many records wait.
    pub fn depth(&self) -> u64 {
        self.head.saturating_sub(self.durable.load(Ordering::Acquire))
    }

    /// Adds a record; its position, or nothing if there is no room.
    pub fn push(&mut self, record: &[u8]) -> Option<u64> {
        if self.depth() >= SLOTS {
            return None;
        }
        self.slots[(self.head % SLOTS) as usize].put(record);
        // Whoever is killed before this has pushed nothing.
        compiler_fence(Ordering::SeqCst);
        self.head += 1;
        Some(self.head)
    }

    /// The record at a position that is pushed and not yet durable.
    pub fn at(&self, position: u64) -> &[u8] {
        self.slots[(position % SLOTS) as usize].get()
    }
}

static RING: AtomicPtr<Ring> = AtomicPtr::new(ptr::null_mut());

/// Makes the mapping, zeroed: pages come into being when they are used.
pub fn create() -> io::Result<()> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Ring>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Who did what is no business of whoever reads a core dump, which would grow by all of it.
    // SAFETY: the mapping that was just made.
    unsafe { libc::madvise(memory, size_of::<Ring>(), libc::MADV_DONTDUMP) };
    RING.store(memory.cast(), Ordering::Relaxed);
    Ok(())
}

/// The mapping; null if it could not be made, or we were not preloaded.
pub fn get() -> *mut Ring {
    RING.load(Ordering::Relaxed)
}
