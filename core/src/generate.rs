//! Random values for `secret_generate`: every character equally likely.

use crate::{
    error::{Error, GenerateError},
    limits::GENERATE_MAX,
    random,
};
use std::str::FromStr;
use zeroize::Zeroizing;

/// The characters that a random value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// `A-Z a-z 0-9 - _` (RFC 4648, section 5): 6 bits a character.
    Base64Url,
    /// `0-9 a-f`: 4 bits a character.
    Hex,
    /// `A-Z a-z 0-9`: 5.95 bits a character.
    Alphanumeric,
    /// `0-9`: 3.32 bits a character.
    Digits,
    /// All printable ASCII characters but space, quotes and backslash: 6.49 bits a character.
    Printable,
}

impl Charset {
    /// The names under which the charsets are offered.
    pub const NAMES: [&'static str; 5] =
        ["base64url", "hex", "alphanumeric", "digits", "printable"];

    fn characters(self) -> &'static [u8] {
        match self {
            Charset::Base64Url => {
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
            }
            Charset::Hex => b"0123456789abcdef",
            Charset::Alphanumeric => {
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
            }
            Charset::Digits => b"0123456789",
            Charset::Printable => {
                b"!#$%&()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_abcdefghijklmnopqrstuvwxyz{|}~"
            }
        }
    }
}

impl FromStr for Charset {
    type Err = GenerateError;

    fn from_str(text: &str) -> Result<Self, GenerateError> {
        match text {
            "base64url" => Ok(Charset::Base64Url),
            "hex" => Ok(Charset::Hex),
            "alphanumeric" => Ok(Charset::Alphanumeric),
            "digits" => Ok(Charset::Digits),
            "printable" => Ok(Charset::Printable),
            _ => Err(GenerateError::Charset),
        }
    }
}

/// A random value of `length` characters.
///
/// # Errors
/// [`GenerateError::Length`] outside 1 to [`GENERATE_MAX`]; [`Error::Randomness`].
pub fn generate(length: i32, charset: Charset) -> Result<Zeroizing<Vec<u8>>, Error> {
    let length = usize::try_from(length)
        .ok()
        .filter(|length| (1..=GENERATE_MAX).contains(length))
        .ok_or(GenerateError::Length)?;
    let characters = charset.characters();
    // Bytes at or above the largest multiple of the charset's size are drawn again: taking them
    // modulo would make the first characters likelier.
    let fair = 256 - 256 % characters.len();
    let mut value = Zeroizing::new(Vec::with_capacity(length));
    let mut drawn = Zeroizing::new([0u8; 64]);
    while value.len() < length {
        random::fill(drawn.as_mut_slice())?;
        let fresh = drawn.iter().map(|byte| usize::from(*byte));
        let missing = length - value.len();
        value.extend(
            fresh
                .filter(|byte| *byte < fair)
                .map(|byte| characters[byte % characters.len()])
                .take(missing),
        );
    }
    Ok(value)
}
