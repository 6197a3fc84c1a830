//! The memory that outlives a crash of the server, when a process is killed in the middle of a write to it: after
//! every single instruction of the write, what is left is the state before or the state after, or nothing.
//!
//! The structures are the extension's own, and pure. A child writes, and its parent steps it through with
//! ptrace(2) and looks.
#![allow(dead_code, clippy::unwrap_used)]

#[path = "../../src/shmem/ring.rs"]
mod ring;
#[path = "../../src/shmem/text.rs"]
mod text;
#[path = "../../src/shmem/vault.rs"]
mod vault;

use ring::{Queue, Repeat};
use std::ptr;
use vault::Vault;

type Id = [u8; vault::FINGERPRINT];
type Key = [u8; 32];

/// Root keys and KEKs by what they are found by.
type Keys = (Vec<(Id, Key)>, Vec<(Key, Key)>);

const OLD: [(Id, Key); 2] = [(*b"the old current.", [1; 32]), (*b"the old previous", [2; 32])];
const NEW: [(Id, Key); 2] = [(*b"the new current.", [3; 32]), (*b"the old current.", [1; 32])];
const KEK: (Key, Key) = ([7; 32], [8; 32]);
const OTHER_KEK: (Key, Key) = ([9; 32], [10; 32]);

#[test]
fn root_keys_that_are_exchanged_are_all_there_or_none() {
    let states = killed_in_the_vault(|vault| exchange(vault, &NEW));
    assert!(states.contains(&(vec![], vec![])) && states.contains(&(NEW.into(), vec![])));
    assert_only(states, &[(OLD.into(), vec![KEK]), (vec![], vec![]), (NEW.into(), vec![])]);
}

#[test]
fn root_keys_that_are_wiped_are_all_there_or_none() {
    assert_only(killed_in_the_vault(Vault::wipe), &[(OLD.into(), vec![KEK]), (vec![], vec![])]);
    // As an operator seals: nothing comes back.
    let states = killed_in_the_vault(|vault| {
        vault.sealed_by_operator = 1;
        vault.wipe();
    });
    assert_only(states, &[(OLD.into(), vec![KEK]), (vec![], vec![])]);
}

#[test]
fn a_kek_is_whole_or_gone() {
    let kept = (OLD.into(), vec![KEK]);
    let states = killed_in_the_vault(|vault| vault.keks[3].write(&OTHER_KEK.0, &OTHER_KEK.1));
    assert_only(states, &[kept.clone(), (OLD.into(), vec![OTHER_KEK, KEK])]);
    let states = killed_in_the_vault(|vault| vault.keks[5].write(&OTHER_KEK.0, &OTHER_KEK.1));
    assert_only(states, &[kept.clone(), (OLD.into(), vec![]), (OLD.into(), vec![OTHER_KEK])]);
    let states = killed_in_the_vault(|vault| vault.keks[5].wipe());
    assert_only(states, &[kept, (OLD.into(), vec![])]);
}

#[test]
fn a_record_counts_when_it_is_whole() {
    let memory = Shared::<Queue>::zeroed();
    let (first, second) = (vec![0x11; 1500], vec![0x22; 1700]);
    // The slot of the second has held another.
    memory.get().head = ring::SLOTS - 1;
    memory.get().durable = (ring::SLOTS - 1).into();
    memory.get().push(&first).unwrap();
    let head = memory.get().head;
    let mut seen = [false; 2];
    let steps = memory.killed_in(
        |queue| {
            queue.push(&second);
        },
        |queue| {
            assert!(queue.head == head || queue.head == head + 1);
            assert_eq!(queue.at(head - 1), first, "the one before");
            seen[(queue.head - head) as usize] = true;
            if queue.head > head {
                assert_eq!(queue.at(head), second);
            }
        },
    );
    assert!(seen == [true; 2] && steps > 20, "{steps} steps");
}

#[test]
fn a_repeat_is_one_or_the_other() {
    let memory = Shared::<Repeat>::zeroed();
    let (first, second) = (vec![0x11; 1500], vec![0x22; 1700]);
    memory.get().again(&first);
    let mut seen = [false; 2];
    let steps = memory.killed_in(
        |repeat| repeat.again(&second),
        |repeat| {
            let latest = repeat.record();
            assert!(latest == first || latest == second, "torn");
            assert!(repeat.count == 1 || latest == second, "counted too early");
            seen[(repeat.count - 1) as usize] = true;
        },
    );
    assert!(seen == [true; 2] && steps > 20, "{steps} steps");
}

// --- the vault ------------------------------------------------------------------------------------

/// What is in the vault after each moment at which somebody who changes it can be killed, and the server's restart.
fn killed_in_the_vault(change: impl FnOnce(&mut Vault)) -> Vec<Keys> {
    let memory = Shared::<Vault>::zeroed();
    let after = Shared::<Vault>::zeroed();
    exchange(memory.get(), &OLD);
    memory.get().keks[5].write(&KEK.0, &KEK.1);
    let mut states = Vec::new();
    let mut before = Vec::new();
    let steps = memory.killed_in(change, |vault| {
        if memory.bytes() == before {
            return;
        }
        before = memory.bytes().to_vec();
        // SAFETY: as large as each other, and plain data.
        unsafe { ptr::copy_nonoverlapping(vault, after.0, 1) };
        after.get().heal();
        let keys = keys(after.get());
        if states.last() != Some(&keys) {
            states.push(keys);
        }
    });
    assert!(steps > 20, "{steps} steps");
    states
}

fn exchange(vault: &mut Vault, roots: &[(Id, Key)]) {
    vault.exchange(roots.iter().map(|(id, key)| (id, key)));
}

fn keys(vault: &Vault) -> Keys {
    let roots = vault.roots.iter().filter(|slot| slot.used == 1);
    let keks = vault.keks.iter().filter(|slot| slot.used == 1);
    (
        roots.map(|slot| (slot.id, slot.key)).collect(),
        keks.map(|slot| (slot.id, slot.key)).collect(),
    )
}

fn assert_only(states: Vec<Keys>, allowed: &[Keys]) {
    assert!(states.len() > 1, "nothing changed");
    for state in states {
        assert!(allowed.contains(&state), "{state:?}");
    }
}

// --- who is killed --------------------------------------------------------------------------------

/// Memory that a child shares with us.
struct Shared<T>(*mut T);

impl<T> Shared<T> {
    /// Zeroed, as the extension gets it: all that is in it may be zeros.
    fn zeroed() -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory = unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), access, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        Self(memory.cast())
    }

    #[allow(clippy::mut_from_ref)]
    fn get(&self) -> &mut T {
        // SAFETY: a mapping of this size, of plain data; nobody keeps the reference.
        unsafe { &mut *self.0 }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.0.cast(), size_of::<T>()) }
    }

    /// Has a child make a change, and looks at the memory after each of its instructions. How many there were.
    fn killed_in(&self, change: impl FnOnce(&mut T), mut look: impl FnMut(&T)) -> usize {
        // SAFETY: the child only writes to the mapping, without asking for memory, and ends; the parent waits for
        // it at each step.
        unsafe {
            let none = ptr::null_mut::<libc::c_void>();
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                libc::ptrace(libc::PTRACE_TRACEME, 0, none, none);
                libc::raise(libc::SIGSTOP);
                change(&mut *self.0);
                libc::_exit(0);
            }
            let mut status = 0;
            libc::waitpid(child, &mut status, 0);
            assert!(libc::WIFSTOPPED(status), "ptrace(2) is not allowed");
            let mut steps = 0;
            while libc::WIFSTOPPED(status) {
                look(&*self.0);
                assert_eq!(libc::ptrace(libc::PTRACE_SINGLESTEP, child, none, none), 0);
                libc::waitpid(child, &mut status, 0);
                steps += 1;
            }
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
            steps
        }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `zeroed` made.
        unsafe { libc::munmap(self.0.cast(), size_of::<T>()) };
    }
}
