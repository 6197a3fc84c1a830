//! What keeps values out of the log, of `pg_stat_activity` and of `pg_stat_statements`.
//!
//! - [`log`]: the line that goes to the server's log is masked, the client's error stays whole;
//! - [`statement`]: which statements are concerned; those with literals get no query id;
//! - [`activity`]: `pg_stat_activity` shows their masked text;
//! - [`denial`]: refusals by PostgreSQL itself, which the log is the only place to hear of.
//!
//! Hooks that only pass through are plain functions without destructors: pgrx's guard would strip
//! CONTEXT, position and constraint names from every error of the server.

mod activity;
mod denial;
mod log;
mod statement;

use std::sync::atomic::{AtomicBool, Ordering};

static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Installs the hooks; while libraries are preloaded.
pub fn init() {
    log::init();
    statement::init();
    INSTALLED.store(true, Ordering::Relaxed);
}

/// To be called by every function that values go through, first of all.
pub fn value_function_runs() {
    if INSTALLED.load(Ordering::Relaxed) {
        statement::value_function_runs();
    }
}
