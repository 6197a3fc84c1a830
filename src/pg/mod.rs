//! The boundary to PostgreSQL: the only module, besides shared memory and workers, with `unsafe`.
//!
//! pgrx gives the bindings, but its own function wrapper does not fit here: it knows only the
//! SQLSTATEs that PostgreSQL itself defines (no `PT404`), drops CONTEXT and constraint names of
//! errors that pass through, and puts a Rust backtrace into the client's DETAIL when
//! `RUST_BACKTRACE` is set for the server. So the way in and out is ours, and small:
//!
//! - [`call`]: entry points, arguments, results;
//! - [`raise`]: errors out, and errors of PostgreSQL caught on the way;
//! - [`spi`]: SQL through kept plans; [`scan`]: index scans without any SQL surface;
//! - [`rows`]: result sets; [`value`]: results that are wiped; [`user`]: who runs what;
//!   [`pinned`]: with which settings;
//! - [`session`]: who is at the other end; [`response`]: what PostgREST answers;
//!   [`server`]: state of server and transaction; [`version`]: what differs between versions of PostgreSQL.

pub mod call;
pub mod catalog;
pub mod pinned;
pub mod raise;
pub mod response;
pub mod rows;
pub mod scan;
pub mod server;
pub mod session;
pub mod spi;
pub mod trigger;
pub mod user;
pub mod value;
pub mod version;
