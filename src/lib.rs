//! `meshhook_secrets`: project-scoped secrets inside PostgreSQL.
//!
//! ```text
//! api      SQL functions: decode arguments, call a service, encode the result
//! service  use cases: who may, which keys, what happens
//! store    our tables: all SQL text, all index scans
//! shmem    keys in protected memory         root_key  where root keys come from
//! workers  background processes             gucs      settings
//! hooks    no value in logs and views       error     every error and its SQLSTATE
//! pg       the boundary to PostgreSQL
//! ```
//!
//! Imports run downwards; `meshhook_secrets_core`, the pure part, is below all of it.

use pgrx::{pg_sys, prelude::*};

pub mod api;
pub mod error;
pub mod gucs;
mod hooks;
pub mod pg;
mod root_key;
mod service;
mod shmem;
mod store;
mod workers;

pgrx::pg_module_magic!();

/// Called by PostgreSQL when it loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::raise::silence_panics();
    gucs::init();
    // SAFETY: reads a flag of the postmaster.
    if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        // Loaded by a session: there is no key memory, and every function says what to do.
        return;
    }
    hooks::init();
    match shmem::keyring::init() {
        Ok(shmem::Protection::Secret) => {}
        Ok(protection) => pg::raise::log(
            pgrx::PgLogLevel::WARNING,
            &format!(
                "meshhook_secrets: memfd_secret is not available, keys are protected by {} only",
                protection.as_str()
            ),
            Some(
                "Use Linux 6.5 or later, or boot with secretmem.enable=1; raise the limit of locked memory.",
            ),
        ),
        Err(error) => {
            pg::raise::log(
                pgrx::PgLogLevel::WARNING,
                &format!("meshhook_secrets: no memory for keys, secrets stay sealed: {error}"),
                None,
            );
            return;
        }
    }
    if let Err(error) = shmem::audit::init() {
        pg::raise::log(
            pgrx::PgLogLevel::WARNING,
            &format!("meshhook_secrets: no memory for audit records, calls are refused: {error}"),
            None,
        );
    }
    shmem::board::init();
    shmem::counters::init();
    // pg_upgrade takes over the files as they are, and counters of the transactions from before it started
    // this server: whatever a worker wrote here would be damage.
    // SAFETY: reads a flag of the postmaster.
    if unsafe { pg_sys::IsBinaryUpgrade } {
        return;
    }
    workers::root_key::init();
    workers::launcher::init();
    workers::audit::init();
}
