//! Messages that carry statements: the server's own, auto_explain's, pgaudit's.

use super::{
    MASK,
    lexer::{Kind, Tokens, find},
    sql::{self, Also},
    text::{cut, join, parameters},
};

/// The formats of PostgreSQL's messages that end with the statement.
const WITH_STATEMENT: [&[u8]; 7] = [
    b"statement: %s",
    b"duration: %s ms  statement: %s",
    b"%s %s%s%s: %s",
    b"duration: %s ms  %s %s%s%s: %s",
    b"duration: %s ms  parse %s: %s",
    b"duration: %s ms  bind %s%s%s: %s",
    b"parse %s: %s",
];

/// Whether messages of this format end with the statement.
pub fn carries_statement(format: &[u8]) -> bool {
    WITH_STATEMENT.contains(&format)
}

/// A message made from one of the formats that are known to carry statements.
pub fn message(text: &[u8], format: &[u8], statement: Option<&[u8]>) -> Option<Vec<u8>> {
    if carries_statement(format) {
        return Some(match statement.and_then(|statement| text.strip_suffix(statement)) {
            Some(start) => {
                let masked = sql::mask(&text[start.len()..], Also::default());
                join(&[start, &masked.text])
            }
            None => cut(text, b":"),
        });
    }
    if format.starts_with(b"duration: %.3f ms  plan:") {
        return Some(plan(text));
    }
    if format.starts_with(b"AUDIT: %s") {
        return Some(audit(text).unwrap_or_else(|| b"AUDIT: ***".to_vec()));
    }
    None
}

/// auto_explain, in its text format; of the others only what is before the plan.
fn plan(text: &[u8]) -> Vec<u8> {
    const QUERY: &[u8] = b"Query Text: ";
    const PARAMETERS: &[u8] = b"Query Parameters: ";
    let start = match find(text, b"\n") {
        Some(at) if text[at + 1..].starts_with(QUERY) => at + 1 + QUERY.len(),
        _ => return cut(text, b"\n"),
    };
    let query = &text[start..];
    let end = query_end(query, |rest| rest.starts_with(PARAMETERS) || is_plan(rest));
    let mut rest = &query[end..];
    let mut out = join(&[&text[..start], &sql::mask(&query[..end], Also::default()).text]);
    if let Some(list) = rest.strip_prefix(PARAMETERS) {
        out.extend_from_slice(PARAMETERS);
        let Some((masked, length)) = parameters(list) else {
            out.extend_from_slice(MASK);
            return out;
        };
        out.extend_from_slice(&masked);
        rest = &list[length..];
    }
    join(&[&out, &sql::mask(rest, Also { keep_numbers: true, ..Also::default() }).text])
}

/// Where the statement ends: at a line, outside of literals and comments, that is what follows it.
fn query_end(query: &[u8], follows: impl Fn(&[u8]) -> bool) -> usize {
    for token in Tokens::of(query) {
        let line = token.kind == Kind::Space && query[..token.whole.end].ends_with(b"\n");
        if line && follows(&query[token.whole.end..]) {
            return token.whole.end;
        }
    }
    query.len()
}

/// Whether a plan begins here: its first line has the costs.
fn is_plan(text: &[u8]) -> bool {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words = find(line, b"  (cost=").map(|at| &line[..at]);
    words.is_some_and(|words| !words.iter().any(|byte| matches!(byte, b'\'' | b'$')))
}

/// pgaudit: the statement is the eighth field of a line of comma-separated ones, its parameters the
/// ninth.
fn audit(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"AUDIT: ".to_vec();
    let mut rest = text.strip_prefix(b"AUDIT: ")?;
    for field in 0.. {
        let (value, quoted, length) = csv(rest)?;
        let masked = match field {
            7 => sql::mask(&value, Also::default()).text,
            8 if !matches!(&value[..], b"<none>" | b"<not logged>" | b"<previously logged>") => {
                MASK.to_vec()
            }
            _ => value,
        };
        write_csv(&mut out, &masked, quoted);
        rest = &rest[length..];
        match rest.split_first() {
            None => return Some(out),
            Some((b',', after)) => {
                out.push(b',');
                rest = after;
            }
            Some(_) => return None,
        }
    }
    None
}

/// The first field: its value, whether it is in quotes, and its length.
fn csv(text: &[u8]) -> Option<(Vec<u8>, bool, usize)> {
    if text.first() != Some(&b'"') {
        let length = text.iter().position(|byte| *byte == b',').unwrap_or(text.len());
        return Some((text[..length].to_vec(), false, length));
    }
    let mut value = Vec::new();
    let mut at = 1;
    loop {
        match (text.get(at)?, text.get(at + 1)) {
            (b'"', Some(b'"')) => {
                value.push(b'"');
                at += 2;
            }
            (b'"', _) => return Some((value, true, at + 1)),
            (byte, _) => {
                value.push(*byte);
                at += 1;
            }
        }
    }
}

fn write_csv(out: &mut Vec<u8>, value: &[u8], quoted: bool) {
    if !quoted {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for byte in value {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
