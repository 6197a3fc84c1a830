//! Background workers.

pub mod launcher;
pub mod maintenance;
pub mod root_key;

use pgrx::pg_sys;

/// Ends a worker. Status 1: the postmaster starts it again, if it is of the kind that is restarted,
/// unless the server shuts down.
fn stop() -> ! {
    // SAFETY: ends this process by PostgreSQL's own rules.
    unsafe { pg_sys::proc_exit(1) }
}
