//! The life of a KEK.

use crate::error::Error;
use std::str::FromStr;

/// `kek_storage.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KekStatus {
    /// Made, never used.
    Pending,
    /// Wraps new data keys. At most one.
    Active,
    /// Replaced; the data keys it wraps are being rewrapped.
    Retiring,
    /// Replaced and provably unused.
    Retired,
    /// Switched off: what it wraps cannot be read until it is enabled again.
    Disabled,
    /// Believed to be known to somebody else: still reads, never wraps.
    Compromised,
    /// Unused and waiting for its destruction; does not work.
    DestroyScheduled,
    /// Its bytes are gone. Final.
    Destroyed,
}

use KekStatus::{
    Active, Compromised, DestroyScheduled, Destroyed, Disabled, Pending, Retired, Retiring,
};

impl KekStatus {
    /// All of them, in the order of a KEK's life.
    pub const ALL: [KekStatus; 8] =
        [Pending, Active, Retiring, Retired, Disabled, Compromised, DestroyScheduled, Destroyed];

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Pending => "pending",
            Active => "active",
            Retiring => "retiring",
            Retired => "retired",
            Disabled => "disabled",
            Compromised => "compromised",
            DestroyScheduled => "destroy_scheduled",
            Destroyed => "destroyed",
        }
    }

    /// Whether a KEK in this status may wrap a data key.
    pub fn may_wrap(self) -> bool {
        self == Active
    }

    /// Whether a KEK in this status may unwrap a data key.
    pub fn may_unwrap(self) -> bool {
        matches!(self, Active | Retiring | Retired | Compromised)
    }

    /// Whether a KEK may go from this status to `next`.
    ///
    /// A disabled KEK comes back as what its wraps make of it: `retiring` if data keys still hang on
    /// it, `retired` if none do; never `active`, or one that was compromised could wrap again by this
    /// way round. Only a KEK that nothing
    /// needs (`pending`, `retired`, `disabled`, `compromised`; the caller proves that it is
    /// unused) can be scheduled for destruction, and a cancelled schedule leaves it `disabled`.
    pub fn may_become(self, next: KekStatus) -> bool {
        match self {
            Pending => matches!(next, Active | DestroyScheduled),
            Active => matches!(next, Retiring | Disabled | Compromised),
            Retiring => matches!(next, Retired | Disabled | Compromised),
            Retired => matches!(next, Disabled | Compromised | DestroyScheduled),
            Disabled => matches!(next, Retiring | Retired | Compromised | DestroyScheduled),
            Compromised => matches!(next, DestroyScheduled),
            DestroyScheduled => matches!(next, Disabled | Destroyed),
            Destroyed => false,
        }
    }
}

impl FromStr for KekStatus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(Error::UnknownStatus)
    }
}
