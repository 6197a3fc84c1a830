//! Every way in which the core refuses.

use std::fmt;

/// Why the core refused. No variant carries a secret, a key, or user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Stored bytes did not authenticate: altered, moved, cut, or made with another key.
    /// Deliberately without any detail (no oracle).
    Authentication,
    /// An envelope is shorter than [`crate::envelope::OVERHEAD`].
    EnvelopeTooShort,
    /// The first byte of an envelope names a format this version does not know.
    UnknownFormat(u8),
    /// The second byte of an envelope names an algorithm this version does not know.
    UnknownAlgorithm(u8),
    /// The operating system gave no randomness.
    Randomness,
    /// A value is longer than the limit of its kind.
    TooLarge,
    /// A secret's name breaks a rule of [`crate::name`].
    Name(NameError),
    /// A root key source could not be read as keys.
    RootKey(RootKeyError),
    /// A random value was asked for with a length or charset that is not offered.
    Generate(GenerateError),
    /// A status name is none of the known ones.
    UnknownStatus,
}

/// Which rule a secret's name breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// No character at all.
    Empty,
    /// More than [`crate::limits::NAME_MAX`] characters.
    TooLong,
    /// The first character is not a letter or an underscore.
    FirstCharacter,
    /// A later character is not a letter, digit, underscore, dot or hyphen.
    Character,
}

/// What is wrong with the content of a root key source. Lines count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKeyError {
    /// No line holds a key.
    NoKey,
    /// The content is not UTF-8 text.
    NotText,
    /// The line is neither 64 hexadecimal digits nor the base64 of 32 bytes.
    Malformed {
        /// The line.
        line: usize,
    },
    /// The line holds one byte repeated 32 times: not a random key.
    Trivial {
        /// The line.
        line: usize,
    },
    /// The line repeats an earlier key.
    Repeated {
        /// The line.
        line: usize,
    },
    /// More than [`crate::limits::ROOT_KEYS_MAX`] keys.
    TooMany,
}

/// What is wrong with a request for a random value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerateError {
    /// Length outside 1 to [`crate::limits::GENERATE_MAX`].
    Length,
    /// No such charset.
    Charset,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Authentication => f.write_str("stored bytes do not authenticate"),
            Error::EnvelopeTooShort => f.write_str("envelope is too short"),
            Error::UnknownFormat(byte) => write!(f, "unknown envelope format {byte:#04x}"),
            Error::UnknownAlgorithm(byte) => write!(f, "unknown envelope algorithm {byte:#04x}"),
            Error::Randomness => f.write_str("the operating system gave no randomness"),
            Error::TooLarge => f.write_str("value is too large"),
            Error::Name(error) => error.fmt(f),
            Error::RootKey(error) => error.fmt(f),
            Error::Generate(error) => error.fmt(f),
            Error::UnknownStatus => f.write_str("unknown status"),
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::Empty => "The name is empty.",
            NameError::TooLong => "The name is longer than 255 characters.",
            NameError::FirstCharacter => {
                "The first character of the name is not a letter or an underscore."
            }
            NameError::Character => {
                "The name has a character that is not a letter, digit, underscore, dot or hyphen."
            }
        })
    }
}

impl fmt::Display for RootKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootKeyError::NoKey => f.write_str("it holds no key"),
            RootKeyError::NotText => f.write_str("it is not text"),
            RootKeyError::Malformed { line } => {
                write!(f, "line {line} is neither 64 hexadecimal digits nor the base64 of 32 bytes")
            }
            RootKeyError::Trivial { line } => {
                write!(f, "line {line} is one byte repeated, not a random key")
            }
            RootKeyError::Repeated { line } => write!(f, "line {line} repeats an earlier key"),
            RootKeyError::TooMany => {
                write!(f, "it holds more than {} keys", crate::limits::ROOT_KEYS_MAX)
            }
        }
    }
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GenerateError::Length => write!(
                f,
                "The length is not between 1 and {} characters.",
                crate::limits::GENERATE_MAX
            ),
            GenerateError::Charset => f.write_str("There is no such charset."),
        }
    }
}

impl std::error::Error for Error {}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Error::Name(error)
    }
}

impl From<RootKeyError> for Error {
    fn from(error: RootKeyError) -> Self {
        Error::RootKey(error)
    }
}

impl From<GenerateError> for Error {
    fn from(error: GenerateError) -> Self {
        Error::Generate(error)
    }
}
