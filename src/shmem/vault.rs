//! The content of the protected mapping: slots for root keys and KEKs. To be touched under the keyring's
//! lock only.
//!
//! A process can be killed in the middle of a write. PostgreSQL then restarts, and its shared memory, the
//! lock included, is new, while the vault is as it was: a slot whose sequence is odd was being written and
//! is wiped; if the root keys were being exchanged or wiped, or an operator was sealing, all is wiped. Fences
//! for the compiler are enough: what a killed process has done, others see in the order in which it did it.

use meshhook_secrets_core::limits::{KEY_LEN, ROOT_KEYS_MAX};
use std::sync::atomic::{Ordering, compiler_fence};
use zeroize::Zeroize;

/// KEKs kept in memory, over all databases. A database uses one or two.
const KEKS: usize = 256;
/// A KEK is looked for in this many neighbouring slots.
pub const WAYS: usize = 8;
/// Bytes of a root key's fingerprint in hexadecimal.
pub const FINGERPRINT: usize = 16;

/// The content of the protected mapping.
#[repr(C)]
pub struct Vault {
    /// `seal()` was called, and no `unseal()` since.
    pub sealed_by_operator: u32,
    /// Odd while the root keys are being exchanged or wiped.
    pub sequence: u32,
    /// Which slot to give up next where all are taken.
    pub next: u32,
    /// When the settings were read after which the source was last looked at, in microseconds since 2000-01-01 UTC;
    /// 0: never. Here, so that a reload that meets a crash is not taken for one that was answered.
    pub reloaded: i64,
    /// The current one first.
    pub roots: [Slot<FINGERPRINT>; ROOT_KEYS_MAX],
    /// Where [`ways`] says.
    pub keks: [Slot<32>; KEKS],
}

/// A key and what it is found by.
#[repr(C)]
pub struct Slot<const N: usize> {
    /// Odd while the slot is being written.
    sequence: u32,
    /// 1 if it holds a key.
    pub used: u32,
    /// What it is found by.
    pub id: [u8; N],
    /// The key.
    pub key: [u8; KEY_LEN],
}

impl<const N: usize> Slot<N> {
    /// Puts a key in.
    pub fn write(&mut self, id: &[u8; N], key: &[u8; KEY_LEN]) {
        self.change(|slot| {
            slot.id = *id;
            slot.key.copy_from_slice(key);
            slot.used = 1;
        });
    }

    /// Takes the key out.
    pub fn wipe(&mut self) {
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

    /// Whether it holds the key of this id.
    pub fn holds(&self, id: &[u8]) -> bool {
        self.used == 1 && self.id == *id
    }
}

impl Vault {
    /// After a crash: wipes what was being written.
    pub fn heal(&mut self) {
        self.keks.iter_mut().filter(|slot| slot.sequence & 1 == 1).for_each(Slot::wipe);
        if self.sealed_by_operator != 0 || self.sequence & 1 == 1 {
            self.wipe();
        }
    }

    /// Exchanges the root keys, the current one first; KEKs came out of the former ones and go.
    pub fn exchange<'a>(
        &mut self,
        roots: impl Iterator<Item = (&'a [u8; FINGERPRINT], &'a [u8; KEY_LEN])>,
    ) {
        self.change(|vault| {
            vault.wipe_slots();
            for (slot, (id, key)) in vault.roots.iter_mut().zip(roots) {
                slot.write(id, key);
            }
        });
    }

    /// Takes all keys out: half of the root keys would look like all of them.
    pub fn wipe(&mut self) {
        self.change(Self::wipe_slots);
    }

    fn wipe_slots(&mut self) {
        self.roots.iter_mut().for_each(Slot::wipe);
        self.keks.iter_mut().for_each(Slot::wipe);
    }

    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        self.sequence |= 1;
        compiler_fence(Ordering::SeqCst);
        change(self);
        compiler_fence(Ordering::SeqCst);
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// The slots in which a KEK of this digest may be.
pub fn ways(digest: &[u8; 32]) -> impl Iterator<Item = usize> + use<> {
    let start = usize::from(u16::from_le_bytes([digest[0], digest[1]]));
    (0..WAYS).map(move |way| (start + way) % KEKS)
}
