//! Names of secrets: `[A-Za-z_][A-Za-z0-9_.-]*`, 1 to 255 characters.

use crate::{error::NameError, limits::NAME_MAX};

/// A name that obeys the rules. Names are compared byte by byte: `Key` and `KEY` are two secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretName<'a>(&'a str);

impl<'a> SecretName<'a> {
    /// Checks `text` against the rules.
    ///
    /// # Errors
    /// The [`NameError`] of the first rule it breaks.
    pub fn parse(text: &'a str) -> Result<Self, NameError> {
        let Some(first) = text.chars().next() else {
            return Err(NameError::Empty);
        };
        if text.chars().nth(NAME_MAX).is_some() {
            return Err(NameError::TooLong);
        }
        if !(first.is_ascii_alphabetic() || first == '_') {
            return Err(NameError::FirstCharacter);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !text.chars().all(allowed) {
            return Err(NameError::Character);
        }
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}
