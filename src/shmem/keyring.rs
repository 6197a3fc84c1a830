//! The keyring: root keys and the KEKs in use, shared by all server processes.
//!
//! Locking: everything here, the state in PostgreSQL's shared memory and the [`Vault`] in the
//! protected mapping, is read under the one lock in share mode and written in exclusive mode. The
//! lock is held for a few copies; never across SPI, I/O, or anything that can raise an ERROR.
//!
//! A process can be killed in the middle of a write. PostgreSQL then restarts, and its shared
//! memory, the lock included, is new, while the vault is as it was: a slot whose sequence is odd was
//! being written and is wiped; if the root keys were being exchanged, or an operator was sealing, all
//! is wiped.

use super::region::{self, Protection};
use crate::error::{Error, Result};
use meshhook_secrets_core::{
    key::{Kek, RootKey},
    limits::{KEY_LEN, ROOT_KEYS_MAX},
};
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, pg_sys, prelude::*};
use std::{
    io,
    sync::atomic::{AtomicBool, Ordering, compiler_fence},
};
use zeroize::{Zeroize, zeroize_stack};

/// KEKs kept in memory, over all databases. A database uses one or two.
const KEKS: usize = 256;
/// A KEK is looked for in this many neighbouring slots.
const WAYS: usize = 8;
/// Bytes of a root key's fingerprint in hexadecimal.
const FINGERPRINT: usize = 16;

/// The content of the protected mapping.
#[repr(C)]
pub struct Vault {
    /// `seal()` was called, and no `unseal()` since.
    sealed_by_operator: u32,
    /// Odd while the root keys are being exchanged.
    sequence: u32,
    /// Which slot to give up next where all are taken.
    next: u32,
    roots: [Slot<FINGERPRINT>; ROOT_KEYS_MAX],
    keks: [Slot<32>; KEKS],
}

/// A key and what it is found by.
#[repr(C)]
struct Slot<const N: usize> {
    /// Odd while the slot is being written.
    sequence: u32,
    used: u32,
    id: [u8; N],
    key: [u8; KEY_LEN],
}

impl<const N: usize> Slot<N> {
    fn write(&mut self, id: &[u8; N], key: &[u8; KEY_LEN]) {
        self.change(|slot| {
            slot.id = *id;
            slot.key.copy_from_slice(key);
            slot.used = 1;
        });
    }

    fn wipe(&mut self) {
        self.change(|slot| {
            slot.used = 0;
            slot.id.zeroize();
            slot.key.zeroize();
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        self.sequence |= 1;
        compiler_fence(Ordering::SeqCst);
        change(self);
        compiler_fence(Ordering::SeqCst);
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn holds(&self, id: &[u8]) -> bool {
        self.used == 1 && self.id == *id
    }
}

/// What the keyring is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The server has just started; the worker is fetching the root key.
    Loading,
    Open,
    Sealed,
}

/// A text of bounded length in shared memory.
#[derive(Clone, Copy)]
struct Text {
    length: usize,
    bytes: [u8; 400],
}

impl Text {
    const EMPTY: Text = Text { length: 0, bytes: [0; 400] };

    fn set(&mut self, text: &str) {
        self.length = text.floor_char_boundary(self.bytes.len());
        self.bytes[..self.length].copy_from_slice(&text.as_bytes()[..self.length]);
    }

    fn get(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.length]).into_owned()
    }
}

/// The part of the keyring that is no secret, in PostgreSQL's shared memory.
#[derive(Clone, Copy)]
struct State {
    phase: Phase,
    cause: Text,
    remedy: Text,
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
    heal(&mut vault.keks);
    if vault.sealed_by_operator != 0 || vault.sequence & 1 == 1 {
        wipe(vault);
        vault.sequence &= !1;
    }
    if vault.sealed_by_operator != 0 {
        sealed_by_operator(&mut state);
    } else if vault.roots.iter().any(|slot| slot.used == 1) {
        state.phase = Phase::Open;
    }
    state
}

fn heal<const N: usize>(slots: &mut [Slot<N>]) {
    for slot in slots.iter_mut().filter(|slot| slot.sequence & 1 == 1) {
        slot.wipe();
    }
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
    let started = crate::pg::server::now();
    loop {
        match read(|state, _| (state.phase, state.cause, state.remedy))? {
            (Phase::Open, ..) => return Ok(()),
            (Phase::Sealed, cause, remedy) => {
                return Err(Error::sealed(cause.get(), remedy.get()));
            }
            (Phase::Loading, ..) => {
                if crate::pg::server::now() - started > PATIENCE_MS * 1000 {
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
    wipe_registers();
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
    wipe_registers();
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
    wipe_registers();
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

fn ways(digest: &[u8; 32]) -> impl Iterator<Item = usize> + use<> {
    let start = usize::from(u16::from_le_bytes([digest[0], digest[1]]));
    (0..WAYS).map(move |way| (start + way) % KEKS)
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
        vault.sequence |= 1;
        compiler_fence(Ordering::SeqCst);
        wipe(vault);
        for (slot, (id, key)) in vault.roots.iter_mut().zip(ids.iter().zip(keys)) {
            slot.write(id, key.expose());
        }
        compiler_fence(Ordering::SeqCst);
        vault.sequence = vault.sequence.wrapping_add(1);
        state.phase = Phase::Open;
        state.cause.set("");
        state.remedy.set("");
        state.since = crate::pg::server::now();
        true
    });
    wipe_registers();
    opened
}

/// Seals because the root key cannot be had; the worker's answer to `asked`.
pub fn fail(cause: &str, remedy: &str, asked: u64) -> Result<()> {
    write(|state, vault| {
        state.answered = asked;
        if vault.sealed_by_operator != 0 {
            return;
        }
        wipe(vault);
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
        wipe(vault);
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
}

/// What there is to do for the worker.
pub fn task() -> Result<Task> {
    read(|state, vault| Task {
        asked: state.asked,
        answered: state.answered,
        forbidden: vault.sealed_by_operator != 0,
        open: state.phase == Phase::Open,
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

fn wipe(vault: &mut Vault) {
    vault.roots.iter_mut().for_each(Slot::wipe);
    vault.keks.iter_mut().for_each(Slot::wipe);
}

/// Clears the vector registers and the stack below, through which keys were copied: both would be
/// part of a core dump.
#[inline(never)]
fn wipe_registers() {
    zeroize_stack::<4096>();
    #[cfg(target_arch = "x86_64")]
    registers::wipe();
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use std::arch::{asm, is_x86_feature_detected};

    /// Clears all vector registers that the processor has; memcpy(3) uses the widest.
    pub fn wipe() {
        if is_x86_feature_detected!("avx") {
            // SAFETY: the processor has the instruction; what it overwrites is declared.
            unsafe {
                asm!("vzeroall",
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                    out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                    out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                    options(nomem, nostack, preserves_flags));
            }
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions. The compiler does not use these registers:
            // the crate is built for processors that lack them.
            unsafe {
                asm!(
                    "vpxord zmm16, zmm16, zmm16",
                    "vpxord zmm17, zmm17, zmm17",
                    "vpxord zmm18, zmm18, zmm18",
                    "vpxord zmm19, zmm19, zmm19",
                    "vpxord zmm20, zmm20, zmm20",
                    "vpxord zmm21, zmm21, zmm21",
                    "vpxord zmm22, zmm22, zmm22",
                    "vpxord zmm23, zmm23, zmm23",
                    "vpxord zmm24, zmm24, zmm24",
                    "vpxord zmm25, zmm25, zmm25",
                    "vpxord zmm26, zmm26, zmm26",
                    "vpxord zmm27, zmm27, zmm27",
                    "vpxord zmm28, zmm28, zmm28",
                    "vpxord zmm29, zmm29, zmm29",
                    "vpxord zmm30, zmm30, zmm30",
                    "vpxord zmm31, zmm31, zmm31",
                    options(nomem, nostack, preserves_flags)
                );
            }
        }
    }
}
