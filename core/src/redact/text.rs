//! Free text with what may be a value masked: kept is only what is proven to be PostgreSQL's own words.

use super::{
    MASK,
    lexer::{Kind, Tokens, find},
    room, sql,
};

/// What opens a quotation in PostgreSQL's messages, in any language.
const QUOTES: [&str; 17] =
    ["'", "\"", "`", "{", "«", "»", "„", "“", "”", "‚", "‘", "’", "‹", "›", "「", "『", "《"];

/// What data follows in DETAIL and CONTEXT.
pub const STOPS: &[u8] = b"(:=[<\n";

/// Everything before the first quotation, or the first of these bytes; what follows is masked.
pub fn cut(text: &[u8], stops: &[u8]) -> Vec<u8> {
    let Some(at) = stop(text, stops) else { return text.to_vec() };
    let end = match std::str::from_utf8(&text[at..]).ok().and_then(|rest| rest.chars().next()) {
        Some('\n') => at,
        Some(char) => at + char.len_utf8(),
        None => at,
    };
    let mut out = text[..end].to_vec();
    if matches!(text.get(at), Some(b':' | b'=')) && text.get(end) == Some(&b' ') {
        out.push(b' ');
    }
    out.extend_from_slice(MASK);
    out
}

/// Where the first quotation, or the first of these bytes, is. In a text that is not UTF-8, any byte
/// that is not ASCII may be a quotation mark; a dollar quote is one too.
pub fn stop(text: &[u8], stops: &[u8]) -> Option<usize> {
    let of_bytes = text.iter().position(|byte| stops.contains(byte));
    let of_quotes = match std::str::from_utf8(text) {
        Ok(text) => QUOTES.iter().filter_map(|quote| text.find(quote)).min(),
        Err(_) => text.iter().position(|byte| !byte.is_ascii() || b"'\"`{".contains(byte)),
    };
    let dollar = text.windows(2).position(|pair| {
        pair[0] == b'$' && (pair[1] == b'$' || pair[1].is_ascii_alphabetic() || pair[1] == b'_')
    });
    [of_bytes, of_quotes, dollar].into_iter().flatten().min()
}

/// A list as PostgreSQL writes it (`$1 = 'a', $2 = NULL`), its values masked, up to the end or a
/// line's end outside of them; with the length of what was read. `None` if it is no such list.
pub fn parameters(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        let digits = text.get(at..)?.strip_prefix(b"$")?;
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value = at + 1 + digits + 3;
        if digits == 0 || text.get(value - 3..value)? != b" = " {
            return None;
        }
        out.extend_from_slice(&text[at..value]);
        if text[value..].starts_with(b"NULL") {
            out.extend_from_slice(b"NULL");
            at = value + 4;
        } else {
            at = quoted_end(text, value)?;
            out.extend_from_slice(b"'***'");
        }
        match text.get(at..)? {
            [] | [b'\n', ..] => return Some((out, at)),
            rest if rest.starts_with(b", $") => {
                out.extend_from_slice(b", ");
                at += 2;
            }
            _ => return None,
        }
    }
}

/// The end of a value in quotes, of which those inside are doubled.
fn quoted_end(text: &[u8], start: usize) -> Option<usize> {
    if text.get(start) != Some(&b'\'') {
        return None;
    }
    let mut at = start + 1;
    loop {
        match (text.get(at)?, text.get(at + 1)) {
            (b'\'', Some(b'\'')) => at += 2,
            (b'\'', _) => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// Where a list of parameters begins, with nothing before it on its line that could be data.
fn parameters_start(line: &[u8]) -> Option<usize> {
    let at = (0..line.len()).find(|at| {
        let rest = line[*at..].strip_prefix(b"$").unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        digits > 0 && rest[digits..].starts_with(b" = ")
    })?;
    stop(&line[..at], b"(=[<\n").is_none().then_some(at)
}

/// A DETAIL of PostgreSQL's or of another extension's code.
pub fn detail(text: &[u8]) -> Vec<u8> {
    if let Some(start) = parameters_start(text) {
        return match parameters(&text[start..]) {
            Some((list, length)) if start + length == text.len() => join(&[&text[..start], &list]),
            _ => join(&[&text[..start], MASK]),
        };
    }
    for prefix in [&b"prepare: "[..], b"Failed process was running: "] {
        if let Some(statement) = text.strip_prefix(prefix) {
            return join(&[prefix, &sql::mask(statement, sql::Also::default()).text]);
        }
    }
    if text.starts_with(b"Key (") {
        if let Some(at) = find(text, b")=(") {
            let end: &[u8] = if text.ends_with(b" already exists.") {
                b"***) already exists."
            } else if find(text, b" is still referenced from table ").is_some() {
                b"***) is still referenced."
            } else if find(text, b" is not present in table ").is_some() {
                b"***) is not present."
            } else {
                b"***)"
            };
            // Columns, not expressions, which may hold literals.
            if stop(&text[5..at], b"([:=<\n").is_none() {
                return join(&[&text[..at + 3], end]);
            }
        }
        return b"Key (***".to_vec();
    }
    if text.starts_with(b"Process ") {
        return deadlock(text);
    }
    cut(text, STOPS)
}

/// Who waits for whom, and what they were running.
fn deadlock(text: &[u8]) -> Vec<u8> {
    let is_wait = |line: &[u8]| {
        line.starts_with(b"Process ")
            && find(line, b" waits for ").is_some()
            && line.iter().all(|byte| byte.is_ascii_alphanumeric() || b" ;,.()".contains(byte))
    };
    let mut end = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if !is_wait(line.strip_suffix(b"\n").unwrap_or(line)) {
            break;
        }
        end += line.len();
    }
    // What they were running was cut off at a length, so that where literals begin and end is sure
    // only up to the first.
    let queries = &text[end..];
    match stop(queries, b"") {
        Some(at) => join(&[&text[..end + at], MASK]),
        None => text.to_vec(),
    }
}

/// A CONTEXT: what called what, innermost first.
pub fn context(text: &[u8]) -> Vec<u8> {
    let Some(mut out) = room(text.len()) else { return MASK.to_vec() };
    let mut rest = text;
    while !rest.is_empty() {
        let line = line_of(rest);
        let mut length = line.len();
        if is_frame(line) {
            out.extend_from_slice(line);
        } else if let Some(opening) = STATEMENTS.iter().find(|opening| rest.starts_with(opening)) {
            let end = statement_end(rest, opening.len());
            let masked = sql::mask(&rest[opening.len()..end], sql::Also::default());
            out.extend_from_slice(opening);
            out.extend_from_slice(&masked.text);
            out.push(b'"');
            length = (end + 1).min(rest.len());
        } else if let Some(start) = parameters_start(line) {
            out.extend_from_slice(&line[..start]);
            match parameters(&rest[start..]) {
                Some((list, read)) => {
                    out.extend_from_slice(&list);
                    length = start + read;
                }
                None => {
                    out.extend_from_slice(MASK);
                    return out;
                }
            }
        } else {
            // From here on there may be data, and data may look like anything.
            out.extend_from_slice(&cut(rest, STOPS));
            return out;
        }
        rest = &rest[length..];
        if let Some(after) = rest.strip_prefix(b"\n") {
            out.push(b'\n');
            rest = after;
        }
    }
    out
}

const STATEMENTS: [&[u8]; 4] = [
    b"SQL statement \"",
    b"SQL expression \"",
    b"PL/pgSQL assignment \"",
    b"PL/pgSQL expression \"",
];

fn line_of(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// Whether a line says only which function was at which line.
fn is_frame(line: &[u8]) -> bool {
    let plain = |text: &[u8]| {
        text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_ (),.[]/-".contains(byte))
    };
    if let Some(name) = line.strip_prefix(b"SQL function \"") {
        let mut parts = name.splitn(2, |byte| *byte == b'"');
        return matches!((parts.next(), parts.next()), (Some(a), Some(b)) if plain(a) && plain(b));
    }
    line == b"parallel worker" || (line.starts_with(b"PL/pgSQL function ") && plain(line))
}

/// The closing quote of a statement: the last of the text, or one that a known line follows.
fn statement_end(text: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(next) = text.get(at..).and_then(|rest| find(rest, b"\"\n")) {
        let after = &text[at + next + 2..];
        let line = line_of(after);
        if is_frame(line) || STATEMENTS.iter().any(|opening| after.starts_with(opening)) {
            return at + next;
        }
        if line.starts_with(b"unnamed portal ") || line.starts_with(b"portal \"") {
            return at + next;
        }
        at += next + 2;
    }
    if text.ends_with(b"\"") { (text.len() - 1).max(start) } else { text.len() }
}

/// A message, by the format it was made from: what the format has in quotes is masked.
pub fn message(text: &[u8], format: &[u8]) -> Vec<u8> {
    let conversion = format
        .windows(2)
        .position(|pair| matches!(pair[0], b'"' | b'\'' | b'`') && pair[1] == b'%');
    let english = find(format, b"%").is_some_and(|at| text.starts_with(&format[..at]));
    if conversion.is_none() && (english || text == format) {
        return text.to_vec();
    }
    let Some(at) = stop(text, b"") else { return text.to_vec() };
    // The end of the format, after its last conversion.
    let last = format.iter().rposition(|byte| *byte == b'%').unwrap_or(0);
    let end = format[last..].iter().position(|byte| matches!(byte, b'"' | b'\'' | b'`'));
    let end = end.map_or(&b""[..], |from| &format[last + from..]);
    let is_ours =
        english && !end.is_empty() && text.ends_with(end) && at + 1 + end.len() <= text.len();
    if is_ours { join(&[&text[..=at], MASK, end]) } else { cut(text, b"") }
}

/// What a message has in double quotes.
pub fn quotation(text: &[u8]) -> Option<&[u8]> {
    let first = text.iter().position(|byte| *byte == b'"')?;
    let last = text.iter().rposition(|byte| *byte == b'"')?;
    text.get(first + 1..last).filter(|body| !body.is_empty())
}

/// Whether a text mentions one of these keywords, outside of literals.
pub fn has_keyword(statement: &[u8], keywords: &[&str]) -> bool {
    Tokens::of(statement).any(|token| {
        let body = &statement[token.whole.clone()];
        token.kind == Kind::Word
            && keywords.iter().any(|keyword| body.eq_ignore_ascii_case(keyword.as_bytes()))
    })
}

pub(crate) fn join(parts: &[&[u8]]) -> Vec<u8> {
    let Some(mut out) = room(parts.iter().map(|part| part.len()).sum()) else {
        return MASK.to_vec();
    };
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}
