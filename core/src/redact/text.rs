//! Free text with what may be a value masked: kept is only what is proven to be PostgreSQL's own words.

use super::{
    MASK,
    buffer::{Buffer, copy, join},
    lexer::{Kind, Tokens, find},
    sql,
    taint::Taint,
};

/// What opens a quotation in PostgreSQL's messages, in any language.
const QUOTES: [&str; 17] =
    ["'", "\"", "`", "{", "«", "»", "„", "“", "”", "‚", "‘", "’", "‹", "›", "「", "『", "《"];

/// What data follows in DETAIL and CONTEXT.
pub const STOPS: &[u8] = b"(:=[<\n";

/// Everything before the first quotation, or the first of these bytes; what follows is masked, and with it the
/// known value that goes on there.
pub fn cut(text: &[u8], stops: &[u8], known: &Taint) -> Vec<u8> {
    let Some(at) = stop(text, stops) else { return copy(text) };
    let Some(start) = known.start_of_crossing(text, at) else { return MASK.to_vec() };
    if start < at {
        return join(&[&text[..start], MASK]);
    }
    let end = match std::str::from_utf8(&text[at..]).ok().and_then(|rest| rest.chars().next()) {
        Some('\n') => at,
        Some(char) => at + char.len_utf8(),
        None => at,
    };
    let spaced = matches!(text.get(at), Some(b':' | b'=')) && text.get(end) == Some(&b' ');
    join(&[&text[..end], if spaced { b" " } else { b"" }, MASK])
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
    let mut out = Buffer::default();
    let mut at = 0;
    loop {
        let digits = text.get(at..)?.strip_prefix(b"$")?;
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value = at + 1 + digits + 3;
        if digits == 0 || text.get(value - 3..value)? != b" = " {
            return None;
        }
        out.add(&text[at..value]);
        if text[value..].starts_with(b"NULL") {
            out.add(b"NULL");
            at = value + 4;
        } else {
            at = quoted_end(text, value)?;
            out.add(b"'***'");
        }
        match text.get(at..)? {
            [] | [b'\n', ..] => return Some((out.text()?, at)),
            rest if rest.starts_with(b", $") => {
                out.add(b", ");
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
pub fn detail(text: &[u8], known: &Taint) -> Vec<u8> {
    let masked = by_shape(text, known);
    // A known value may look like any of the shapes: then a part of it would be left.
    let kept = text.iter().zip(&masked).take_while(|(before, after)| before == after).count();
    let Some(start) = known.start_of_crossing(text, kept) else { return MASK.to_vec() };
    if start < kept { join(&[&text[..start], MASK]) } else { masked }
}

fn by_shape(text: &[u8], known: &Taint) -> Vec<u8> {
    if let Some(start) = parameters_start(text) {
        return match parameters(&text[start..]) {
            Some((list, length)) if start + length == text.len() => join(&[&text[..start], &list]),
            _ => join(&[&text[..start], MASK]),
        };
    }
    for prefix in [&b"prepare: "[..], b"Failed process was running: "] {
        if let Some(statement) = text.strip_prefix(prefix) {
            return join(&[prefix, &sql::mask(statement, sql::Also::default())]);
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
    cut(text, STOPS, known)
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
        None => copy(text),
    }
}

/// A CONTEXT: what called what, innermost first.
pub fn context(text: &[u8], known: &Taint) -> Vec<u8> {
    let mut out = Buffer::with_room(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let at = text.len() - rest.len();
        if known.start_of_crossing(text, at) != Some(at) {
            // It has several lines, and would not be found in what is made of each.
            return MASK.to_vec();
        }
        let line = line_of(rest);
        let mut length = line.len();
        if is_frame(line) {
            out.add(line);
        } else if let Some(opening) = STATEMENTS.iter().find(|opening| rest.starts_with(opening)) {
            let end = statement_end(rest, opening.len());
            let masked = sql::mask(&rest[opening.len()..end], sql::Also::default());
            out.add(opening);
            out.add(&masked);
            out.add(b"\"");
            length = (end + 1).min(rest.len());
        } else if let Some(start) = parameters_start(line) {
            if known.start_of_crossing(text, at + start) != Some(at + start) {
                return MASK.to_vec();
            }
            out.add(&line[..start]);
            match parameters(&rest[start..]) {
                Some((list, read)) => {
                    out.add(&list);
                    length = start + read;
                }
                None => {
                    out.add(MASK);
                    return out.or_mask();
                }
            }
        } else {
            // From here on there may be data, and data may look like anything.
            out.add(&cut(rest, STOPS, known));
            return out.or_mask();
        }
        rest = &rest[length..];
        if let Some(after) = rest.strip_prefix(b"\n") {
            out.add(b"\n");
            rest = after;
        }
    }
    out.or_mask()
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

/// A message, by the format it was made from: what the format has in quotes is masked. What it has
/// outside of quotes may be a text with quotations of its own, which are masked to the end.
pub fn message(text: &[u8], format: &[u8], known: &Taint) -> Vec<u8> {
    let conversion = format
        .windows(2)
        .position(|pair| matches!(pair[0], b'"' | b'\'' | b'`') && pair[1] == b'%');
    let english = find(format, b"%").is_some_and(|at| text.starts_with(&format[..at]));
    if text == format || (conversion.is_none() && english && !has_text(format)) {
        return copy(text);
    }
    let Some(at) = stop(text, b"") else { return copy(text) };
    // The end of the format, after its last conversion.
    let last = format.iter().rposition(|byte| *byte == b'%').unwrap_or(0);
    let end = format[last..].iter().position(|byte| matches!(byte, b'"' | b'\'' | b'`'));
    let end = end.map_or(&b""[..], |from| &format[last + from..]);
    let is_ours =
        english && !end.is_empty() && text.ends_with(end) && at + 1 + end.len() <= text.len();
    if is_ours { join(&[&text[..=at], MASK, end]) } else { cut(text, b"", known) }
}

/// Whether a format has a conversion of a text: `%s`, `%.*s`, `%1$s`, `%-10s`, or one that is none of
/// numbers.
fn has_text(format: &[u8]) -> bool {
    let mut rest = format;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        rest = &rest[at + 1..];
        let flags = rest.iter().position(|byte| !b"0123456789.*$+- #'hljztq".contains(byte));
        let Some(end) = flags else { return true };
        if !b"%diouxXeEfFgGm".contains(&rest[end]) {
            return true;
        }
        rest = &rest[end + 1..];
    }
    false
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
