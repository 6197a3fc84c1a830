//! The pure part of `meshhook_secrets`: no PostgreSQL, no I/O but the OS randomness source.
//!
//! ```text
//! root key ──wraps──▶ KEK ──wraps──▶ data key (DEK) ──seals──▶ values
//!                                        └──authenticates──▶ metadata
//!          ──wraps──▶ audit key ──seals──▶ audit log
//! ```
//!
//! Top down: [`root_key`] reads root keys, [`key`] holds the kinds of key and what each may do,
//! [`envelope`] is the byte format of every wrap and seal, [`identity`] is what those bytes are bound
//! to, [`audit`] the records and seals of the audit log, [`redact`] what a log line may show. [`name`],
//! [`limits`], [`kek_status`], [`dek_status`] and [`generate`] are the rules.
#![forbid(unsafe_code)]

pub mod audit;
pub mod dek_status;
pub mod envelope;
pub mod error;
pub mod generate;
pub mod identity;
pub mod kek_status;
pub mod key;
pub mod limits;
pub mod name;
pub mod random;
pub mod redact;
pub mod root_key;

pub use error::Error;
