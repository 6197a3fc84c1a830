//! Messages that carry statements: the server's own, auto_explain's, pgaudit's.

use super::{
    MASK,
    buffer::{Buffer, join},
    lexer::{Kind, Tokens, find},
    sql::{self, Also},
    taint::Taint,
    text::{cut, parameters},
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
pub fn message(
    text: &[u8],
    format: &[u8],
    statement: Option<&[u8]>,
    known: &Taint,
) -> Option<Vec<u8>> {
    if carries_statement(format) {
        return Some(match statement.and_then(|statement| text.strip_suffix(statement)) {
            Some(start) => join(&[start, &sql::mask(&text[start.len()..], Also::default())]),
            None => cut(text, b":", known),
        });
    }
    if format.starts_with(b"duration: %.3f ms  plan:") {
        return Some(plan(text, known));
    }
    if format.starts_with(b"AUDIT: %s") {
        return Some(audit(text).unwrap_or_else(|| b"AUDIT: ***".to_vec()));
    }
    None
}

/// auto_explain, in its text format; of the others only what is before the plan.
fn plan(text: &[u8], known: &Taint) -> Vec<u8> {
    const QUERY: &[u8] = b"Query Text: ";
    const PARAMETERS: &[u8] = b"Query Parameters: ";
    let start = match find(text, b"\n") {
        Some(at) if text[at + 1..].starts_with(QUERY) => at + 1 + QUERY.len(),
        _ => return cut(text, b"\n", known),
    };
    let query = &text[start..];
    let end = query_end(query, |rest| rest.starts_with(PARAMETERS) || is_plan(rest));
    let mut rest = &query[end..];
    let query = sql::mask(&query[..end], Also::default());
    let mut list = None;
    if let Some(found) = rest.strip_prefix(PARAMETERS) {
        let Some((masked, length)) = parameters(found) else {
            return join(&[&text[..start], &query, PARAMETERS, MASK]);
        };
        list = Some(masked);
        rest = &found[length..];
    }
    let plan = sql::mask(rest, Also { keep_numbers: true, ..Also::default() });
    match list {
        Some(list) => join(&[&text[..start], &query, PARAMETERS, &list, &plan]),
        None => join(&[&text[..start], &query, &plan]),
    }
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
/// ninth; at most one follows.
fn audit(text: &[u8]) -> Option<Vec<u8>> {
    const UNKNOWN: [&[u8]; 3] = [b"<none>", b"<not logged>", b"<previously logged>"];
    let mut out = Buffer::with_room(text.len());
    out.add(b"AUDIT: ");
    let mut rest = text.strip_prefix(b"AUDIT: ")?;
    for field in 0..10 {
        let (value, quoted) = csv(rest)?;
        rest = &rest[value.len() + if quoted { 2 } else { 0 }..];
        let quote: &[u8] = if quoted { b"\"" } else { b"" };
        out.add(quote);
        match field {
            7 if quoted => {
                let statement = sql::mask(&undoubled(value)?, Also::default());
                for part in statement.split_inclusive(|byte| *byte == b'"') {
                    out.add(part);
                    out.add(if part.ends_with(quote) { quote } else { b"" });
                }
            }
            7 => out.add(&sql::mask(value, Also::default())),
            8 if !UNKNOWN.contains(&value) => out.add(MASK),
            _ => out.add(value),
        }
        out.add(quote);
        match rest.split_first() {
            None => return out.text(),
            Some((b',', after)) => {
                out.add(b",");
                rest = after;
            }
            Some(_) => return None,
        }
    }
    None
}

/// The first field as it is written, without the quotes around it, and whether there are any.
fn csv(text: &[u8]) -> Option<(&[u8], bool)> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let length = text.iter().position(|byte| *byte == b',').unwrap_or(text.len());
        return Some((&text[..length], false));
    };
    let mut at = 0;
    loop {
        match (quoted.get(at)?, quoted.get(at + 1)) {
            (b'"', Some(b'"')) => at += 2,
            (b'"', _) => return Some((&quoted[..at], true)),
            _ => at += 1,
        }
    }
}

/// A field with its doubled quotes made single.
fn undoubled(field: &[u8]) -> Option<Vec<u8>> {
    let mut out = Buffer::with_room(field.len());
    let mut rest = field;
    while let Some(at) = rest.iter().position(|byte| *byte == b'"') {
        out.add(&rest[..=at]);
        rest = rest.get(at + 2..)?;
    }
    out.add(rest);
    out.text()
}
