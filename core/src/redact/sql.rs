//! Statements with their literals masked.

use super::{
    MASK,
    buffer::Buffer,
    lexer::{Kind, Token, Tokens},
};

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
pub fn mask(sql: &[u8], also: Also) -> Vec<u8> {
    mask_at(sql, also, 0).0
}

/// As [`mask`], with the place where the character at `position` (counted from 1) is then; 0 if that
/// cannot be said. A place inside a literal becomes the literal's start.
pub fn mask_at(sql: &[u8], also: Also, position: usize) -> (Vec<u8>, usize) {
    let place = byte_of(sql, position);
    let mut moved = None;
    let mut out = Buffer::with_room(sql.len());
    for token in Tokens::of(sql) {
        let start = out.bytes().len();
        let within = place.filter(|place| token.whole.contains(place));
        let hidden = hide(sql, &token, &also, &mut out);
        if let Some(place) = within {
            moved = Some(if hidden { start } else { start + place - token.whole.start });
        }
        if !hidden {
            out.add(&sql[token.whole]);
        }
    }
    if place == Some(sql.len()) {
        moved = Some(out.bytes().len());
    }
    let Some(text) = out.text() else { return (MASK.to_vec(), 0) };
    let position = moved.and_then(|moved| text.get(..moved)).map_or(0, |before| {
        1 + before.iter().copied().filter(|byte| starts_character(*byte)).count()
    });
    (text, position)
}

/// Where the character at `position` (counted from 1) begins; the end of the text is a position too.
fn byte_of(text: &[u8], position: usize) -> Option<usize> {
    let before = position.checked_sub(1)?;
    let mut starts = (0..text.len()).filter(|at| starts_character(text[*at]));
    let mut passed = 0;
    for start in starts.by_ref() {
        if passed == before {
            return Some(start);
        }
        passed += 1;
    }
    (passed == before).then_some(text.len())
}

/// Whether a byte of UTF-8 is the first of its character.
fn starts_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// Writes what stands for a token that is to be masked; `false` if it is not.
fn hide(sql: &[u8], token: &Token, also: &Also, out: &mut Buffer) -> bool {
    let body = &sql[token.body.clone()];
    if body.is_empty() {
        return false;
    }
    match token.kind {
        Kind::String { .. } => {
            out.add(&sql[token.whole.start..token.body.start]);
            out.add(MASK);
            if token.closed {
                out.add(b"'");
            }
        }
        // The tag is the author's text too.
        Kind::Dollar => {
            out.add(b"$$");
            out.add(MASK);
            if token.closed {
                out.add(b"$$");
            }
        }
        Kind::Number if !also.keep_numbers => out.add(MASK),
        Kind::Quoted if !token.closed || !is_name(body) || also.names(body) => {
            out.add(b"\"");
            out.add(MASK);
            if token.closed {
                out.add(b"\"");
            }
        }
        Kind::Word if also.unquoted && also.names(body) => out.add(MASK),
        // An unterminated comment may be anything.
        Kind::Comment if !token.closed => out.add(b"/****"),
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
