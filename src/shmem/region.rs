//! The memory that keys live in.
//!
//! Made once, in the postmaster, while it preloads us; every server process inherits the mapping.
//! It is not PostgreSQL's shared memory: that is part of core dumps, and is thrown away when the
//! server restarts after the crash of a process, whereas keys must survive it.

use super::vault::Vault;
use std::{
    io, ptr,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};

static VAULT: AtomicPtr<Vault> = AtomicPtr::new(ptr::null_mut());
static PROTECTION: AtomicU32 = AtomicU32::new(0);

/// How well the memory is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// `memfd_secret(2)`: not even the kernel maps it; no dump, no swap, no ptrace.
    Secret = 1,
    /// `mlock(2)` and `MADV_DONTDUMP`: no swap, no core dump.
    Locked = 2,
    /// `MADV_DONTDUMP` alone: the limit of locked memory is too low.
    Undumped = 3,
}

impl Protection {
    /// The name shown by `seal_status()`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protection::Secret => "memfd_secret",
            Protection::Locked => "mlock",
            Protection::Undumped => "madvise",
        }
    }
}

/// Makes the mapping, zeroed. Called once, in the postmaster.
pub fn create() -> io::Result<Protection> {
    let (memory, protection) = match secret() {
        Ok(memory) => (memory, Protection::Secret),
        Err(_) => ordinary()?,
    };
    VAULT.store(memory.cast(), Ordering::Relaxed);
    PROTECTION.store(protection as u32, Ordering::Relaxed);
    Ok(protection)
}

/// The mapping; null if we were not preloaded.
pub fn vault() -> *mut Vault {
    VAULT.load(Ordering::Relaxed)
}

/// How the mapping is protected.
pub fn protection() -> Protection {
    match PROTECTION.load(Ordering::Relaxed) {
        1 => Protection::Secret,
        2 => Protection::Locked,
        _ => Protection::Undumped,
    }
}

fn secret() -> io::Result<*mut libc::c_void> {
    // SAFETY: plain system calls; the descriptor is ours and closed again, the mapping keeps the
    // memory alive.
    unsafe {
        let file = libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) as libc::c_int;
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        let memory = if libc::ftruncate(file, size_of::<Vault>() as libc::off_t) == 0 {
            map(libc::MAP_SHARED, file)
        } else {
            Err(io::Error::last_os_error())
        };
        libc::close(file);
        memory
    }
}

fn ordinary() -> io::Result<(*mut libc::c_void, Protection)> {
    let memory = map(libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)?;
    // SAFETY: the mapping that was just made.
    unsafe {
        if libc::madvise(memory, size_of::<Vault>(), libc::MADV_DONTDUMP) != 0 {
            return Err(io::Error::last_os_error());
        }
        let locked = libc::mlock(memory, size_of::<Vault>()) == 0;
        Ok((memory, if locked { Protection::Locked } else { Protection::Undumped }))
    }
}

fn map(flags: libc::c_int, file: libc::c_int) -> io::Result<*mut libc::c_void> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Vault>(),
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            file,
            0,
        )
    };
    if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(memory) }
}
