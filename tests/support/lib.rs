//! The harness of the black-box tests.
//!
//! A test takes a fresh database of the shared server, acts in it as the users
//! of a host application, and looks at what comes back:
//!
//! ```ignore
//! let db = Cluster::shared().database();
//! let alice = Uuid::new_v4();
//! let project = db.project(alice);
//! let row = db.user(alice).query_one("SELECT meshhook_secrets.secret_get($1, 'TOKEN')", &[&project]);
//! expect_error(row, "PT404").hint("secret_list");
//! ```
//!
//! A test of restarts, keys or settings starts a server of its own with
//! [`Cluster::builder`]. Every server runs on copied programs ([`Prefix`]), as an
//! unprivileged user, behind a Unix socket in a temporary directory, and is gone
//! when the test process is, however that ended.

mod account;
pub mod audit;
mod builder;
mod cluster;
mod config;
mod database;
mod errors;
pub mod guards;
mod prefix;
mod process;
pub mod restored_log;
mod root_key;
mod scratch;
pub mod source;
mod traces;
mod walk;
mod world;

pub use account::Account;
pub use builder::ClusterBuilder;
pub use cluster::{Cluster, Shutdown};
pub use database::Database;
pub use errors::{Failure, expect_error};
pub use prefix::Prefix;
pub use process::{backend_pid, eventually, processes, run, server_process, signal};
pub use root_key::{KEY_A, KEY_B, RootKey};
pub use scratch::new_dir;
pub use walk::walk;
