//! The life of a data key.

use crate::error::Error;
use std::str::FromStr;

/// `data_keys.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DekStatus {
    /// Seals and opens. One per project.
    Active,
    /// Replaced by a later version; opens what it sealed.
    Retiring,
    /// Its project is sealed: neither seals nor opens.
    Disabled,
}

impl DekStatus {
    /// All of them.
    pub const ALL: [DekStatus; 3] = [DekStatus::Active, DekStatus::Retiring, DekStatus::Disabled];

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            DekStatus::Active => "active",
            DekStatus::Retiring => "retiring",
            DekStatus::Disabled => "disabled",
        }
    }
}

impl FromStr for DekStatus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(Error::UnknownStatus)
    }
}
