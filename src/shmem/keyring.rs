//! The keyring: root keys and the KEKs in use, shared by all server processes.
//!
//! Locking: everything here, the state in PostgreSQL's shared memory and the [`Vault`] in the
//! protected mapping, is read under the one lock in share mode and written in exclusive mode. The
//! lock is held for a few copies; never across SPI, I/O, or anything that can raise an ERROR.

use super::{
    region::{self, Protection},
    text::Text,
    traces,
    vault::{FINGERPRINT, Vault, WAYS, ways},
};
use crate::error::{Error, Result};
use meshhook_secrets_core::key::{Kek, RootKey};
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, pg_sys, prelude::*};
use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

/// What the keyring is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The server has just started; the worker is fetching the root key.
    Loading,
    Open,
    Sealed,
}

/// The part of the keyring that is no secret, in PostgreSQL's shared memory.
#[derive(Clone, Copy)]
struct State {
    phase: Phase,
    cause: Text<400>,
    remedy: Text<400>,
    /// Since when, in microseconds since 2000-01-01 UTC.
    since: i64,
    /// Loads asked for by `unseal()`, and the last one that the worker has answered.
    asked: u64,
    answered: u64,
    /// The worker's latch, as an address valid in every process; 0 while there is no worker.
    latch: usize,
}

// SAFETY: plain data; `latch` is an address in PostgreSQL's own shared memory.
unsafe impl PGRXSharedMemory for State {}

// SAFETY: no other tranche has this name.
static STATE: PgLwLock<State> = unsafe { PgLwLock::new(c"meshhook_secrets_keyring") };
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Why and since when secrets are sealed, for people.
pub struct Status {
    /// Whether they are.
    pub sealed: bool,
    /// Why; empty while open.
    pub cause: String,
    /// What to do; empty while open.
    pub remedy: String,
    /// Since when, in microseconds since 2000-01-01 UTC.
    pub since: i64,
    /// How the key memory is protected.
    pub protection: Protection,
}

/// Makes key memory and state. Called once, in the postmaster, while it preloads us.
pub fn init() -> io::Result<Protection> {
    let protection = region::create()?;
    pg_shmem_init!(STATE = started());
    PRELOADED.store(true, Ordering::Relaxed);
    Ok(protection)
}

/// The state at server start and after a crash restart, when the vault still has its keys.
fn started() -> State {
    let mut state = State {
        phase: Phase::Loading,
        cause: Text::EMPTY,
        remedy: Text::EMPTY,
        since: crate::pg::server::now(),
        asked: 0,
        answered: 0,
        latch: 0,
    };
    // SAFETY: the postmaster runs this before any other process exists.
    let vault = unsafe { &mut *region::vault() };
    vault.heal();
    if vault.sealed_by_operator != 0 {
        sealed_by_operator(&mut state);
    } else if vault.roots.iter().any(|slot| slot.used == 1) {
        state.phase = Phase::Open;
    }
    state
}

fn sealed_by_operator(state: &mut State) {
    state.phase = Phase::Sealed;
    state.cause.set("An operator called meshhook_secrets.seal().");
    state.remedy.set("Call meshhook_secrets.unseal() as a member of meshhook_secrets_kek_admin.");
}

/// Whether the library was loaded at server start.
pub fn is_preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// 55000 unless the library was loaded at server start.
pub fn require_preloaded() -> Result<()> {
    if PRELOADED.load(Ordering::Relaxed) { Ok(()) } else { Err(Error::not_preloaded()) }
}

/// Reads under the lock.
fn read<T>(reader: impl FnOnce(&State, &Vault) -> T) -> Result<T> {
    require_preloaded()?;
    let state = STATE.share();
    // SAFETY: the vault exists when preloaded, and is only written under the exclusive lock.
    Ok(reader(&state, unsafe { &*region::vault() }))
}

/// Writes under the lock.
fn write<T>(writer: impl FnOnce(&mut State, &mut Vault) -> T) -> Result<T> {
    require_preloaded()?;
    let mut state = STATE.exclusive();
    // SAFETY: as in `read`; the exclusive lock makes this the only reference.
    Ok(writer(&mut state, unsafe { &mut *region::vault() }))
}

/// How long a call right after server start waits for the root key.
const PATIENCE_MS: i64 = 5_000;

/// Returns once the keyring is open; PT503 with cause and remedy if it is sealed.
pub fn require_open() -> Result<()> {
    let started = crate::pg::server::uptime();
    loop {
        match read(|state, _| (state.phase, state.cause, state.remedy))? {
            (Phase::Open, ..) => return Ok(()),
            (Phase::Sealed, cause, remedy) => {
                return Err(Error::sealed(cause.get(), remedy.get()));
            }
            (Phase::Loading, ..) => {
                if crate::pg::server::uptime() - started > PATIENCE_MS * 1000 {
                    return Err(Error::sealed(
                        "The root key is still being fetched.",
                        "Try again in a moment; if it lasts, look at meshhook_secrets.root_key_command and the server log.",
                    ));
                }
                crate::pg::server::pause(10);
            }
        }
    }
}

/// The root key with this fingerprint, if it is loaded.
pub fn root(id: &str) -> Result<Option<RootKey>> {
    require_open()?;
    let root = read(|_, vault| {
        let slot = vault.roots.iter().find(|slot| slot.holds(id.as_bytes()))?;
        Some(RootKey::from_bytes(&slot.key))
    });
    traces::wipe();
    root
}

/// The fingerprints of the loaded root keys, the current one first. Empty while sealed.
pub fn root_ids() -> Result<Vec<String>> {
    read(|_, vault| {
        let used = vault.roots.iter().filter(|slot| slot.used == 1);
        used.map(|slot| String::from_utf8_lossy(&slot.id).into_owned()).collect()
    })
}

/// The KEK that was stored under this digest, if it is still in memory.
pub fn kek(digest: &[u8; 32]) -> Result<Option<Kek>> {
    let kek = read(|state, vault| {
        let open = state.phase == Phase::Open;
        let mut slots = ways(digest).map(|index| &vault.keks[index]);
        let found = slots.find(|slot| open && slot.holds(digest));
        found.map(|slot| Kek::from_bytes(&slot.key))
    });
    traces::wipe();
    kek
}

/// Keeps a KEK in memory, in the place of another if there is no room. Not if the root key that it
/// came out of is no longer loaded, or all was sealed in the meantime.
pub fn keep_kek(digest: &[u8; 32], kek: &Kek, root_id: &str) -> Result<()> {
    write(|state, vault| {
        let free = ways(digest).find(|index| vault.keks[*index].used == 0);
        let index = free.unwrap_or_else(|| {
            vault.next = vault.next.wrapping_add(1);
            ways(digest).nth(vault.next as usize % WAYS).unwrap_or(0)
        });
        let rooted = vault.roots.iter().any(|slot| slot.holds(root_id.as_bytes()));
        if state.phase == Phase::Open && rooted {
            vault.keks[index].write(digest, kek.expose());
        }
    })?;
    traces::wipe();
    Ok(())
}

/// Wipes a KEK from memory.
pub fn forget_kek(digest: &[u8; 32]) -> Result<()> {
    write(|_, vault| {
        for index in ways(digest) {
            if vault.keks[index].holds(digest) {
                vault.keks[index].wipe();
            }
        }
    })
}

/// Opens the keyring with these root keys, the current one first; the worker's answer to `asked`.
/// KEKs in memory are wiped, since they came out of the former keys. False if an operator sealed.
pub fn open(keys: &[RootKey], asked: u64) -> Result<bool> {
    let ids: Vec<[u8; FINGERPRINT]> =
        keys.iter().filter_map(|key| key.fingerprint().into_bytes().try_into().ok()).collect();
    let opened = write(|state, vault| {
        state.answered = asked;
        if vault.sealed_by_operator != 0 {
            return false;
        }
        let unchanged = state.phase == Phase::Open
            && vault.roots.iter().filter(|slot| slot.used == 1).count() == ids.len()
            && vault.roots.iter().zip(&ids).all(|(slot, id)| slot.holds(id));
        if unchanged {
            return true;
        }
        vault.exchange(ids.iter().zip(keys.iter().map(RootKey::expose)));
        state.phase = Phase::Open;
        state.cause.set("");
        state.remedy.set("");
        state.since = crate::pg::server::now();
        true
    });
    traces::wipe();
    opened
}

/// Seals because the root key cannot be had; the worker's answer to `asked`.
pub fn fail(cause: &str, remedy: &str, asked: u64) -> Result<()> {
    write(|state, vault| {
        state.answered = asked;
        if vault.sealed_by_operator != 0 {
            return;
        }
        vault.wipe();
        if state.phase != Phase::Sealed {
            state.since = crate::pg::server::now();
        }
        state.phase = Phase::Sealed;
        state.cause.set(cause);
        state.remedy.set(remedy);
    })
}

/// The worker's answer where an operator's seal forbids to load anything.
pub fn decline(asked: u64) -> Result<()> {
    write(|state, _| state.answered = asked)
}

/// Wipes all keys from memory, everywhere and at once, until [`ask`].
pub fn seal() -> Result<()> {
    write(|state, vault| {
        vault.sealed_by_operator = 1;
        vault.wipe();
        state.since = crate::pg::server::now();
        sealed_by_operator(state);
    })
}

/// Lifts an operator's seal and asks the worker to fetch the root key. Returns what
/// [`is_answered`] wants to know about.
pub fn ask() -> Result<u64> {
    let (asked, latch) = write(|state, vault| {
        if vault.sealed_by_operator != 0 {
            vault.sealed_by_operator = 0;
            state.phase = Phase::Loading;
        }
        state.asked += 1;
        (state.asked, state.latch)
    })?;
    if latch != 0 {
        // SAFETY: latches of processes live in shared memory and stay valid when their owner is
        // gone; a latch that is set for nobody does nothing.
        unsafe { pg_sys::SetLatch(latch as *mut pg_sys::Latch) };
    }
    Ok(asked)
}

/// Whether the worker has answered.
pub fn is_answered(asked: u64) -> Result<bool> {
    read(|state, _| state.answered >= asked)
}

/// The worker signs on; what has been asked of it so far.
pub fn attach_worker() -> Result<()> {
    // SAFETY: this process's own latch.
    let latch = unsafe { pg_sys::MyLatch } as usize;
    write(|state, _| state.latch = latch)
}

/// The worker has looked at the source after this reload of the settings.
pub fn looked(reloaded: i64) -> Result<()> {
    write(|_, vault| vault.reloaded = reloaded)
}

/// What the worker needs to know.
pub struct Task {
    /// The latest load asked for.
    pub asked: u64,
    /// The latest one answered.
    pub answered: u64,
    /// An operator sealed: nothing may be loaded.
    pub forbidden: bool,
    /// The keys are there.
    pub open: bool,
    /// The reload after which the source was last looked at.
    pub reloaded: i64,
}

/// What there is to do for the worker.
pub fn task() -> Result<Task> {
    read(|state, vault| Task {
        asked: state.asked,
        answered: state.answered,
        forbidden: vault.sealed_by_operator != 0,
        open: state.phase == Phase::Open,
        reloaded: vault.reloaded,
    })
}

/// The state, for people.
pub fn status() -> Result<Status> {
    read(|state, _| Status {
        sealed: state.phase != Phase::Open,
        cause: match state.phase {
            Phase::Loading => String::from("The root key is being fetched."),
            _ => state.cause.get(),
        },
        remedy: state.remedy.get(),
        since: state.since,
        protection: region::protection(),
    })
}
