//! The tokens of SQL as PostgreSQL's scanner sees them, of statements that are wrong or cut off too.
//!
//! The scanner does not know `standard_conforming_strings` (which may have changed since the
//! statement was read): where the two readings of a plain literal differ, at a quote after an odd
//! number of backslashes, the token runs to the end of the text.

use memchr::memmem;
use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A literal in single quotes, with its prefix (`E`, `B`, `X`, `N`, `U&`), and its continuations.
    String {
        /// Whether backslashes escape.
        escapes: bool,
    },
    /// A dollar-quoted literal.
    Dollar,
    /// A numeric literal.
    Number,
    /// An identifier in double quotes, with its prefix (`U&`).
    Quoted,
    /// A keyword or an identifier.
    Word,
    /// White space.
    Space,
    /// A comment.
    Comment,
    /// A parameter (`$1`), or any other single byte.
    Other,
}

/// A token: where it is, and where its content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// All of it.
    pub whole: Range<usize>,
    /// What stands between the quotes; of everything else, all of it.
    pub body: Range<usize>,
    /// Whether its end was found, and is beyond doubt.
    pub closed: bool,
}

/// What backslashes are in a plain literal: `standard_conforming_strings` of when the statement was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backslashes {
    /// Who knows: a literal whose end depends on it goes on to the end of the text.
    Unknown,
    /// Characters like any other.
    Plain,
    /// They escape.
    Escape,
}

/// The tokens of a text. Together they cover it without gaps.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    backslashes: Backslashes,
}

impl<'a> Tokens<'a> {
    /// Of this text, from its start.
    pub fn of(text: &'a [u8]) -> Self {
        Self::read(text, Backslashes::Unknown)
    }

    /// As it was read by somebody to whom backslashes are this.
    pub fn read(text: &'a [u8], backslashes: Backslashes) -> Self {
        Self { text, at: 0, backslashes }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    /// The first place from `at` on where `is` does not hold.
    fn end_of(&self, at: usize, is: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + rest.iter().position(|byte| !is(*byte)).unwrap_or(rest.len())
    }

    fn plain(&self, kind: Kind, start: usize, end: usize) -> Token {
        Token { kind, whole: start..end, body: start..end, closed: true }
    }

    fn comment(&self, start: usize) -> Token {
        let mut depth = 0_usize;
        let mut at = start;
        while let Some(byte) = self.byte(at) {
            match (byte, self.byte(at + 1)) {
                (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
                (b'*', Some(b'/')) => {
                    (depth, at) = (depth - 1, at + 2);
                    if depth == 0 {
                        return self.plain(Kind::Comment, start, at);
                    }
                }
                _ => at += 1,
            }
        }
        Token { closed: false, ..self.plain(Kind::Comment, start, self.text.len()) }
    }

    /// A literal whose prefix starts at `start` and whose first quote is at `quote`.
    fn string(&self, start: usize, quote: usize, escapes: bool) -> Token {
        let is_plain = start == quote || matches!(self.text[start], b'n' | b'N');
        let escapes = escapes || (is_plain && self.backslashes == Backslashes::Escape);
        let kind = Kind::String { escapes };
        let end = self.text.len();
        let open = Token { kind, whole: start..end, body: quote + 1..end, closed: false };
        let mut at = quote + 1;
        let mut backslashes = 0_usize;
        loop {
            match self.byte(at) {
                None => return open,
                Some(b'\\') if escapes => at += 2,
                Some(b'\\') => (backslashes, at) = (backslashes + 1, at + 1),
                Some(b'\'') => {
                    if backslashes % 2 == 1 && self.backslashes == Backslashes::Unknown {
                        return open;
                    }
                    backslashes = 0;
                    if self.byte(at + 1) == Some(b'\'') {
                        at += 2;
                    } else if let Some(next) = self.continuation(at + 1) {
                        at = next + 1;
                    } else {
                        let body = quote + 1..at;
                        return Token { kind, whole: start..at + 1, body, closed: true };
                    }
                }
                Some(_) => (backslashes, at) = (0, at + 1),
            }
        }
    }

    /// The quote at which a literal goes on that ended just before `at`: the next thing but white
    /// space and comments of a line, with a line's end in between.
    pub(crate) fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut line_ended = false;
        loop {
            match self.byte(at)? {
                b'\n' | b'\r' => (line_ended, at) = (true, at + 1),
                byte if is_space(byte) => at += 1,
                b'-' if self.byte(at + 1) == Some(b'-') => at = self.end_of(at, in_line),
                b'\'' if line_ended => return Some(at),
                _ => return None,
            }
        }
    }

    fn quoted(&self, start: usize, quote: usize) -> Token {
        let mut at = quote + 1;
        while let Some(byte) = self.byte(at) {
            match (byte, self.byte(at + 1)) {
                (b'"', Some(b'"')) => at += 2,
                (b'"', _) => {
                    let body = quote + 1..at;
                    return Token { kind: Kind::Quoted, whole: start..at + 1, body, closed: true };
                }
                _ => at += 1,
            }
        }
        let end = self.text.len();
        Token { kind: Kind::Quoted, whole: start..end, body: quote + 1..end, closed: false }
    }

    fn dollar(&self, start: usize) -> Token {
        let after = self.end_of(start + 1, |byte| is_word(byte) && byte != b'$');
        let first = self.byte(start + 1);
        if first.is_some_and(|byte| byte.is_ascii_digit()) {
            let end = self.end_of(start + 1, |byte| byte.is_ascii_digit());
            return self.plain(Kind::Other, start, end);
        }
        if self.byte(after) != Some(b'$') {
            return self.plain(Kind::Other, start, start + 1);
        }
        let tag = &self.text[start..=after];
        let body = after + 1;
        match find(&self.text[body..], tag) {
            Some(length) => Token {
                kind: Kind::Dollar,
                whole: start..body + length + tag.len(),
                body: body..body + length,
                closed: true,
            },
            None => {
                let end = self.text.len();
                Token { kind: Kind::Dollar, whole: start..end, body: body..end, closed: false }
            }
        }
    }

    fn number(&self, start: usize) -> Token {
        let digits = |at| self.end_of(at, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let mut end = digits(start);
        if self.byte(end) == Some(b'.') && self.byte(end + 1) != Some(b'.') {
            end = digits(end + 1);
        }
        let exponent = matches!(self.text[end - 1], b'e' | b'E');
        if exponent && matches!(self.byte(end), Some(b'+' | b'-')) {
            end = digits(end + 1);
        }
        self.plain(Kind::Number, start, end)
    }

    fn word(&self, start: usize) -> Token {
        let end = self.end_of(start, is_word);
        let next = (self.byte(end), self.byte(end + 1));
        match (&self.text[start..end], next) {
            ([b'e' | b'E'], (Some(b'\''), _)) => self.string(start, end, true),
            ([b'b' | b'B' | b'x' | b'X' | b'n' | b'N'], (Some(b'\''), _)) => {
                self.string(start, end, false)
            }
            ([b'u' | b'U'], (Some(b'&'), Some(b'\''))) => self.string(start, end + 1, false),
            ([b'u' | b'U'], (Some(b'&'), Some(b'"'))) => self.quoted(start, end + 1),
            _ => self.plain(Kind::Word, start, end),
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = self.at;
        let token = match (self.byte(start)?, self.byte(start + 1)) {
            (byte, _) if is_space(byte) => {
                self.plain(Kind::Space, start, self.end_of(start, is_space))
            }
            (b'-', Some(b'-')) => self.plain(Kind::Comment, start, self.end_of(start, in_line)),
            (b'/', Some(b'*')) => self.comment(start),
            (b'\'', _) => self.string(start, start, false),
            (b'"', _) => self.quoted(start, start),
            (b'$', _) => self.dollar(start),
            (byte, _) if byte.is_ascii_digit() => self.number(start),
            // Not in a range, `1..10`.
            (b'.', Some(byte)) if byte.is_ascii_digit() && !self.text[..start].ends_with(b".") => {
                self.number(start)
            }
            (byte, _) if is_word(byte) => self.word(start),
            _ => self.plain(Kind::Other, start, start + 1),
        };
        self.at = token.whole.end;
        Some(token)
    }
}

/// Whether a byte may be inside an identifier.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

/// Where `needle` first occurs; in steps as many as both are long, whatever they are.
pub(crate) fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let can_be_there = !needle.is_empty() && needle.len() <= text.len();
    can_be_there.then(|| memmem::find(text, needle)).flatten()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn in_line(byte: u8) -> bool {
    !matches!(byte, b'\n' | b'\r')
}
