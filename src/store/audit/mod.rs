//! `audit_log`, `audit_pending`, `audit_seals` and `audit_head`.

mod head;
mod log;
mod partitions;
mod pending;
mod seals;

pub use head::*;
pub use log::*;
pub use partitions::*;
pub use pending::*;
pub use seals::*;

use super::Timestamp;
use crate::{
    error::{Error, Result},
    pg::spi::Found,
};
use meshhook_secrets_core::audit::Record;
use pgrx::{FromDatum, datum::TimestampWithTimeZone};

/// A record of the log and its id.
pub struct Stored {
    pub id: i64,
    pub record: Record,
}

fn required<T: FromDatum>(found: &Found, row: usize, column: i32) -> Result<T> {
    found.get(row, column).ok_or_else(Error::corrupted)
}

fn time(found: &Found, row: usize, column: i32) -> Option<Timestamp> {
    found.get::<TimestampWithTimeZone>(row, column).map(i64::from)
}

/// 32 bytes; if there are more or fewer, others that authenticate nothing.
fn hash(found: &Found, row: usize, column: i32) -> [u8; 32] {
    found.get::<Vec<u8>>(row, column).unwrap_or_default().try_into().unwrap_or([0xff; 32])
}
