//! Known values, to be found wherever a message repeats them.

use super::{
    MASK,
    lexer::{Kind, Tokens, find},
    room,
    sql::is_name,
};

/// Shorter ones are not looked for: they are in every other word.
const SHORTEST: usize = 4;
/// More than these, or longer altogether, are too many to look for.
const MOST: usize = 1000;
const LONGEST: usize = 4 << 20;
/// Steps after which looking takes too long.
const STEPS: usize = 50_000_000;

/// The literals and parameters of a statement.
#[derive(Debug, Default)]
pub struct Taint {
    values: Vec<Vec<u8>>,
    bytes: usize,
    overflow: bool,
}

impl Taint {
    /// Adds the strings of a statement.
    pub fn add_statement(&mut self, sql: &[u8]) {
        for token in Tokens::of(sql) {
            let body = &sql[token.body.clone()];
            match token.kind {
                Kind::String { .. } => {
                    self.add(body);
                    if body.iter().any(|byte| matches!(byte, b'\'' | b'\\')) {
                        self.add(&without(body, b'\''));
                        self.add(&without(&without(body, b'\''), b'\\'));
                    }
                }
                Kind::Dollar => self.add(body),
                Kind::Quoted if !is_name(body) => self.add(body),
                _ => {}
            }
        }
    }

    /// Adds a value and, if it is JSON, every string in it.
    pub fn add(&mut self, value: &[u8]) {
        self.add_one(value);
        if !matches!(value.trim_ascii_start().first(), Some(b'{' | b'[' | b'"')) {
            return;
        }
        let mut start = None;
        let mut escaped = false;
        for (at, byte) in value.iter().enumerate() {
            match (byte, escaped, start) {
                (b'"', false, None) => start = Some(at + 1),
                (b'"', false, Some(from)) => {
                    let body = &value[from..at];
                    let is_key = value[at + 1..].trim_ascii_start().starts_with(b":");
                    if !(is_key && is_name(body)) {
                        self.add_json(body);
                    }
                    start = None;
                }
                _ => {}
            }
            escaped = *byte == b'\\' && !escaped;
        }
        if let Some(from) = start {
            self.add_json(&value[from..]);
        }
    }

    fn add_json(&mut self, body: &[u8]) {
        self.add_one(body);
        if body.contains(&b'\\')
            && let Ok(text) = std::str::from_utf8(body)
        {
            self.add_one(unescaped(text).as_bytes());
        }
    }

    fn add_one(&mut self, value: &[u8]) {
        let value = value.trim_ascii();
        if value.len() < SHORTEST || self.values.iter().any(|known| known == value) {
            return;
        }
        self.bytes += value.len();
        if self.values.len() >= MOST || self.bytes > LONGEST {
            self.overflow = true;
            return;
        }
        self.values.push(value.to_vec());
    }

    /// `text` with every occurrence of a known value masked.
    pub fn remove_from(&mut self, text: &[u8]) -> Vec<u8> {
        if self.overflow || self.values.len().saturating_mul(text.len()) > STEPS {
            return MASK.to_vec();
        }
        self.values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let Some(mut left) = room(text.len()) else { return MASK.to_vec() };
        left.extend_from_slice(text);
        for value in &self.values {
            if find(&left, value).is_none() {
                continue;
            }
            let Some(mut next) = room(left.len()) else { return MASK.to_vec() };
            let mut rest = &left[..];
            while let Some(at) = find(rest, value) {
                next.extend_from_slice(&rest[..at]);
                next.extend_from_slice(MASK);
                rest = &rest[at + value.len()..];
            }
            next.extend_from_slice(rest);
            left = next;
        }
        left
    }
}

/// Doubled ones become single; of backslashes, those that escape go.
fn without(body: &[u8], escape: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut skipped = false;
    for byte in body {
        skipped = *byte == escape && !skipped;
        if !skipped {
            out.push(*byte);
        }
    }
    out
}

/// A string of JSON as it is meant.
fn unescaped(body: &str) -> String {
    let mut out = String::with_capacity(body.len());
    let mut units = Vec::new();
    let mut chars = body.chars();
    while let Some(char) = chars.next() {
        let meant = match (char, (char == '\\').then(|| chars.next()).flatten()) {
            (_, Some('u')) => {
                let hex: String = chars.by_ref().take(4).collect();
                units.push(u16::from_str_radix(&hex, 16).unwrap_or(0xfffd));
                continue;
            }
            (_, Some('n')) => '\n',
            (_, Some('t')) => '\t',
            (_, Some('r')) => '\r',
            (_, Some('b')) => '\u{8}',
            (_, Some('f')) => '\u{c}',
            (_, Some(other)) => other,
            (char, None) => char,
        };
        out.push_str(&String::from_utf16_lossy(&units));
        units.clear();
        out.push(meant);
    }
    out.push_str(&String::from_utf16_lossy(&units));
    out
}
