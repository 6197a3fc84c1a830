//! Statements with their literals masked.

use super::{
    MASK,
    lexer::{Kind, Token, Tokens},
    room,
};
use std::ops::Range;

/// A masked statement, and what became of its places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masked {
    /// The statement.
    pub text: Vec<u8>,
    /// What was replaced, and where the replacement is.
    cuts: Vec<(Range<usize>, Range<usize>)>,
}

/// What is masked beyond strings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Also<'a> {
    /// Numbers stay: plans are full of them.
    pub keep_numbers: bool,
    /// An identifier that an error message repeats: masked where it is in double quotes.
    pub quoted: Option<&'a [u8]>,
    /// Masked where it is not quoted, too.
    pub unquoted: bool,
}

/// `sql` with its literals masked.
pub fn mask(sql: &[u8], also: Also) -> Masked {
    let Some(text) = room(sql.len()) else {
        return Masked { text: MASK.to_vec(), cuts: vec![(0..sql.len(), 0..MASK.len())] };
    };
    let mut masked = Masked { text, cuts: Vec::new() };
    for token in Tokens::of(sql) {
        let start = masked.text.len();
        if !hide(sql, &token, &also, &mut masked.text) {
            masked.text.extend_from_slice(&sql[token.whole]);
        } else {
            masked.cuts.push((token.whole, start..masked.text.len()));
        }
    }
    masked
}

/// Writes what stands for a token that is to be masked; `false` if it is not.
fn hide(sql: &[u8], token: &Token, also: &Also, out: &mut Vec<u8>) -> bool {
    let body = &sql[token.body.clone()];
    if body.is_empty() {
        return false;
    }
    match token.kind {
        Kind::String { .. } => {
            out.extend_from_slice(&sql[token.whole.start..token.body.start]);
            out.extend_from_slice(MASK);
            if token.closed {
                out.push(b'\'');
            }
        }
        // The tag is the author's text too.
        Kind::Dollar => {
            out.extend_from_slice(b"$$");
            out.extend_from_slice(MASK);
            if token.closed {
                out.extend_from_slice(b"$$");
            }
        }
        Kind::Number if !also.keep_numbers => out.extend_from_slice(MASK),
        Kind::Quoted if !token.closed || !is_name(body) || also.names(body) => {
            out.push(b'"');
            out.extend_from_slice(MASK);
            if token.closed {
                out.push(b'"');
            }
        }
        Kind::Word if also.unquoted && also.names(body) => out.extend_from_slice(MASK),
        // An unterminated comment may be anything.
        Kind::Comment if !token.closed => out.extend_from_slice(b"/****"),
        _ => return false,
    }
    true
}

impl Also<'_> {
    fn names(&self, body: &[u8]) -> bool {
        self.quoted.is_some_and(|quoted| quoted.eq_ignore_ascii_case(body))
    }
}

/// Whether what stands in double quotes looks like the name of a column or function, as drivers and
/// PostgREST quote them, and not like a value that somebody put into the wrong quotes.
pub(crate) fn is_name(body: &[u8]) -> bool {
    let digits = body.iter().filter(|byte| byte.is_ascii_digit()).count();
    digits <= 3
        && body.len() < 64
        && body.first().is_some_and(|byte| !byte.is_ascii_digit())
        && body
            .iter()
            .all(|byte| matches!(byte, b'_' | b'*' | b'a'..=b'z') || byte.is_ascii_digit())
}

/// Whether a statement holds strings: what must not be stored or shown. (Numbers, which are masked
/// too where a statement is shown, are no values: those are `text` or `bytea`.)
pub fn has_strings(sql: &[u8]) -> bool {
    Tokens::of(sql).any(|token| {
        let body = &sql[token.body.clone()];
        match token.kind {
            Kind::String { .. } | Kind::Dollar => !body.is_empty() && body != MASK,
            Kind::Quoted => !body.is_empty() && !is_name(body),
            Kind::Comment => !token.closed,
            _ => false,
        }
    })
}

impl Masked {
    /// Where the character at `position` of `sql` (counted from 1) is now; `None` if it cannot be
    /// said. A place inside a literal becomes the literal's start.
    pub fn position(&self, sql: &[u8], position: usize) -> Option<usize> {
        let starts = |byte: &u8| (*byte & 0xc0) != 0x80;
        let before = position.checked_sub(1)?;
        // The end of the statement is a position too.
        let byte = match sql.iter().enumerate().filter(|(_, byte)| starts(byte)).nth(before) {
            Some((byte, _)) => byte,
            None if sql.iter().filter(|byte| starts(byte)).count() == before => sql.len(),
            None => return None,
        };
        let (mut from, mut to) = (0, 0);
        for (cut, replacement) in &self.cuts {
            if cut.start > byte {
                break;
            }
            if byte < cut.end {
                (from, to) = (byte, replacement.start);
                break;
            }
            (from, to) = (cut.end, replacement.end);
        }
        let place = self.text.get(..to + (byte - from))?;
        Some(1 + place.iter().filter(|byte| starts(byte)).count())
    }
}
