//! The functions that values go through, and whether a text mentions one.

use super::lexer::is_word;

/// Ours.
pub const VALUE_FUNCTIONS: [&str; 5] =
    ["secret_put", "secret_put_bytes", "secret_get", "secret_get_bytes", "secret_get_many"];

/// Names of functions, in lower case.
#[derive(Clone, Debug)]
pub struct Names {
    names: Vec<Vec<u8>>,
    /// The bytes that a name can start with.
    first: [bool; 256],
}

impl Names {
    /// Ours, and those of a comma-separated list: with or without a schema, arguments and quotes.
    pub fn new(list: &[u8]) -> Self {
        let more = list.split(|byte| *byte == b',').filter_map(bare);
        let names: Vec<_> =
            VALUE_FUNCTIONS.iter().map(|name| name.as_bytes().to_vec()).chain(more).collect();
        Self::of(names)
    }

    /// These, which are in lower case.
    pub fn of(names: Vec<Vec<u8>>) -> Self {
        let mut first = [false; 256];
        for byte in names.iter().filter_map(|name| name.first()) {
            first[usize::from(*byte)] = true;
            first[usize::from(byte.to_ascii_uppercase())] = true;
        }
        Self { names, first }
    }

    /// Whether one of them stands somewhere in a text as a whole word, in upper or lower case, or
    /// may: an identifier in Unicode escapes could be any.
    pub fn mentioned_in(&self, text: &[u8]) -> bool {
        let mut inside = false;
        for (at, byte) in text.iter().enumerate() {
            let starts = !inside;
            inside = is_word(*byte);
            if !starts {
                continue;
            }
            let rest = &text[at..];
            if self.first[usize::from(*byte)] && self.names.iter().any(|name| begins(rest, name)) {
                return true;
            }
            if matches!(rest, [b'u' | b'U', b'&', b'"', ..]) {
                return true;
            }
        }
        false
    }
}

/// Whether a text begins with this word.
fn begins(text: &[u8], name: &[u8]) -> bool {
    text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        && !text.get(name.len()).copied().is_some_and(is_word)
}

/// `"App".Store_Secret(uuid)` is `store_secret`.
fn bare(item: &[u8]) -> Option<Vec<u8>> {
    let name = item.split(|byte| *byte == b'(').next()?;
    let name = name.rsplit(|byte| *byte == b'.').next()?;
    let is_kept = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b')');
    let name: Vec<u8> = name.iter().copied().filter(is_kept).collect();
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}
