//! Known values, to be found wherever a message repeats them.

use super::{
    MASK,
    buffer::{Buffer, copy},
    lexer::{Backslashes, Kind, Tokens, find},
    literal::{Reading, Unclear, meant},
    sql::is_name,
};
use std::cell::Cell;

/// Shorter ones are not looked for: they are in every other word.
const SHORTEST: usize = 4;
/// More than these, or longer altogether, are too many to keep and to look for.
const MOST: usize = 1000;
/// The length of all of them.
pub const LONGEST: usize = 4 << 20;
/// Steps after which keeping them takes too long; and, all over a log line, looking for them.
const STEPS: usize = 50_000_000;

/// The literals and parameters of a statement.
#[derive(Debug, Default)]
pub struct Taint {
    values: Vec<Vec<u8>>,
    bytes: usize,
    steps: usize,
    /// Steps of looking for them, so far.
    looked: Cell<usize>,
    /// Too many: nothing that is not proven to be harmless may stay, and nothing more is kept.
    overflow: bool,
}

impl Taint {
    /// Adds the strings of a statement.
    pub fn add_statement(&mut self, sql: &[u8]) {
        if self.add_tokens(sql, Backslashes::Unknown) {
            self.add_tokens(sql, Backslashes::Plain);
            self.add_tokens(sql, Backslashes::Escape);
        }
    }

    /// Adds the strings of a statement as it is read so; whether the end of one is in doubt.
    fn add_tokens(&mut self, sql: &[u8], backslashes: Backslashes) -> bool {
        let mut doubt = false;
        let mut unicode = false;
        for token in Tokens::read(sql, backslashes) {
            let body = &sql[token.body.clone()];
            let prefix = sql[token.whole.start].to_ascii_lowercase();
            match token.kind {
                Kind::Space | Kind::Comment => {}
                // Another character escapes.
                Kind::Word if unicode && body.eq_ignore_ascii_case(b"uescape") => {
                    self.overflow = true
                }
                kind => unicode = matches!(kind, Kind::String { .. }) && prefix == b'u',
            }
            if self.overflow {
                return false;
            }
            doubt |= !token.closed;
            match token.kind {
                Kind::String { .. } => {
                    self.add(body);
                    // Where it ends is in doubt: it is read again.
                    let is_known = token.closed || backslashes != Backslashes::Unknown;
                    if is_known && body.iter().any(|byte| b"'\\".contains(byte)) {
                        self.add_meant(body, prefix, backslashes);
                    }
                }
                Kind::Dollar => self.add(body),
                Kind::Quoted if !is_name(body) => self.add(body),
                _ => {}
            }
        }
        doubt
    }

    /// Adds what a literal stands for.
    fn add_meant(&mut self, body: &[u8], prefix: u8, backslashes: Backslashes) {
        let readings: &[Reading] = match (prefix, backslashes) {
            (b'e', _) => &[Reading::Escapes],
            (b'u', _) => &[Reading::Unicode],
            (b'b' | b'x', _) | (_, Backslashes::Plain) => &[Reading::Plain],
            (_, Backslashes::Escape) => &[Reading::Escapes],
            (_, Backslashes::Unknown) => &[Reading::Plain, Reading::Escapes],
        };
        for reading in readings {
            match meant(body, *reading) {
                Ok(value) => self.add(&value),
                // Then it was not read so.
                Err(Unclear::Refused) if !matches!(prefix, b'e' | b'u') => {}
                Err(_) => self.overflow = true,
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
            if self.overflow {
                return;
            }
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
        if !self.overflow
            && body.contains(&b'\\')
            && let Ok(text) = std::str::from_utf8(body)
        {
            match unescaped(text) {
                Some(meant) => self.add_one(meant.as_bytes()),
                None => self.overflow = true,
            }
        }
    }

    fn add_one(&mut self, value: &[u8]) {
        let value = value.trim_ascii();
        if self.overflow || value.len() < SHORTEST {
            return;
        }
        // To compare them takes longer when they are long.
        self.steps += self.values.len() * (1 + value.len() / 256);
        if self.values.iter().any(|known| known == value) {
            self.overflow = self.steps > STEPS;
            return;
        }
        self.bytes = self.bytes.saturating_add(value.len());
        let mut kept = Vec::new();
        if self.steps > STEPS
            || self.values.len() >= MOST
            || self.bytes > LONGEST
            || self.values.try_reserve(1).is_err()
            || kept.try_reserve_exact(value.len()).is_err()
        {
            self.overflow = true;
            return;
        }
        kept.extend_from_slice(value);
        self.values.push(kept);
    }

    /// To be called when all are added: the longest go first, for others may be parts of them.
    pub fn sort(&mut self) {
        self.values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// The start of the known value that begins before `end` and goes on behind it, or `end`: a text that is
    /// cut off there must not keep a part of the value. `None` if that takes too long: then nothing may be kept.
    pub(crate) fn start_of_crossing(&self, text: &[u8], mut end: usize) -> Option<usize> {
        loop {
            let windows = self.values.iter().map(|value| 64 + text.len().min(2 * value.len()));
            if !self.may_look(windows.sum()) {
                return None;
            }
            let crossing = self.values.iter().filter_map(|value| {
                let reach = value.len().saturating_sub(1);
                let from = end.saturating_sub(reach);
                let window = text.get(from..text.len().min(end + reach))?;
                find(window, value).map(|at| from + at).filter(|start| *start < end)
            });
            match crossing.min() {
                // Another value may reach into what is left.
                Some(start) => end = start,
                None => return Some(end),
            }
        }
    }

    /// Whether there are as many steps left, which are gone then.
    fn may_look(&self, steps: usize) -> bool {
        let looked = self.looked.get().saturating_add(steps);
        let may = !self.overflow && looked <= STEPS;
        if may {
            self.looked.set(looked);
        }
        may
    }

    /// `text` with every occurrence of a known value masked.
    pub fn remove_from(&self, text: &[u8]) -> Vec<u8> {
        if !self.may_look(self.values.len().saturating_mul(text.len())) {
            return MASK.to_vec();
        }
        let mut left = copy(text);
        for value in &self.values {
            if find(&left, value).is_none() {
                continue;
            }
            let mut next = Buffer::with_room(left.len());
            let mut rest = &left[..];
            while let Some(at) = find(rest, value) {
                next.add(&rest[..at]);
                next.add(MASK);
                rest = &rest[at + value.len()..];
            }
            next.add(rest);
            left = next.or_mask();
        }
        left
    }
}

/// A string of JSON as it is meant; `None` if memory is short.
fn unescaped(body: &str) -> Option<String> {
    // Never longer than it is written, but for one escape that is cut off.
    let mut out = String::new();
    out.try_reserve(body.len().saturating_add(8)).ok()?;
    let mut units = Vec::new();
    let mut chars = body.chars();
    while let Some(char) = chars.next() {
        let meant = match (char, (char == '\\').then(|| chars.next()).flatten()) {
            (_, Some('u')) => {
                let hex: String = chars.by_ref().take(4).collect();
                units.try_reserve(1).ok()?;
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
        flush(&mut units, &mut out);
        out.push(meant);
    }
    flush(&mut units, &mut out);
    Some(out)
}

/// Moves what was escaped in UTF-16 to the text.
fn flush(units: &mut Vec<u16>, out: &mut String) {
    out.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or('\u{fffd}')));
}
