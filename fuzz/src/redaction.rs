//! Masking: of any text without panic, and of a value that is known to be there completely.

use super::source::Source;
use meshhook_secrets_core::redact::{
    MASK,
    lexer::{Kind, Tokens},
    line::Line,
    sql::{self, Also},
    text,
};
use std::borrow::Cow;

/// Masked text is never longer than this: the mask of a digit is three bytes.
fn bound(length: usize) -> usize {
    4 * length + 64
}

/// Any bytes as a statement: tokens cover it, no literal is left in what comes out.
pub fn statements(data: &[u8]) {
    let mut source = Source(data);
    let position = usize::from(source.byte());
    let quoted = source.perhaps(Source::some_bytes);
    let (keep_numbers, unquoted) = (source.flag(), source.flag());
    let also = Also { keep_numbers, quoted, unquoted };
    let statement = source.0;

    let mut at = 0;
    for token in Tokens::of(statement) {
        assert_eq!(token.whole.start, at, "a gap");
        assert!(token.whole.end > at && token.whole.end <= statement.len());
        assert!(token.whole.start <= token.body.start && token.body.end <= token.whole.end);
        at = token.whole.end;
    }
    assert_eq!(at, statement.len());

    let (masked, place) = sql::mask_at(statement, also, position);
    assert!(masked.len() <= bound(statement.len()));
    assert!(place <= masked.len() + 1 && (position > 0 || place == 0));
    if std::str::from_utf8(statement).is_ok() {
        assert!(std::str::from_utf8(&masked).is_ok(), "torn characters");
    }
    // A mask behind a slash looks like the start of a comment, which is no harm.
    let comparable = !statement.contains(&b'/');
    for token in Tokens::of(&masked).filter(|_| comparable) {
        let body = &masked[token.body.clone()];
        let is_masked = match token.kind {
            Kind::String { .. } | Kind::Dollar => body.is_empty() || body == MASK,
            Kind::Number => keep_numbers,
            _ => true,
        };
        assert!(is_masked, "{token:?} of {:?}", String::from_utf8_lossy(&masked));
    }
}

/// Formats of messages: those that PostgreSQL makes most of, and those that carry statements.
const FORMATS: [&str; 16] = [
    "%s",
    "statement: %s",
    "duration: %s ms  statement: %s",
    "duration: %s ms  parse %s: %s",
    "%s %s%s%s: %s",
    "duration: %.3f ms  plan:\n%s",
    "AUDIT: %s,%d,%d,%s,%s,%s,%s,%s,%s",
    "invalid input syntax for type %s: \"%s\"",
    "column \"%s\" does not exist",
    "%s at or near \"%s\"",
    "cron job %ld %s: %s",
    "duplicate key value violates unique constraint \"%s\"",
    "division by zero",
    "could not read \"%s\": %m",
    "%s: %s",
    "took %.3f of %5ld%%",
];

const STATES: [&[u8; 5]; 8] =
    [b"00000", b"22P02", b"42703", b"42601", b"P0001", b"23505", b"42501", b"XX000"];

/// Any bytes as the parts of a line of the log.
pub fn lines(data: &[u8]) {
    let mut source = Source(data);
    let flags = source.byte();
    let format = match flags & 8 {
        0 => source.one_of(&FORMATS).as_bytes(),
        _ => source.some_bytes(),
    };
    let state = *source.one_of(&STATES);
    let position = usize::from(source.byte());
    let mut part = || source.perhaps(Source::some_bytes);
    let [detail, detail_log, hint, context, internal_query, statement] =
        std::array::from_fn(|_| part());
    let parameter = part();
    let parameters: Vec<_> = parameter.into_iter().map(Cow::from).collect();
    // A line that ends with its statement has it in the message, too.
    let message = match (flags & 16, statement) {
        (16, Some(statement)) => [source.0, statement].concat(),
        _ => source.0.to_vec(),
    };
    let line = Line {
        ours: flags & 1 != 0,
        ran: flags & 2 != 0,
        unknown_parameters: flags & 4 != 0,
        state,
        format,
        message: Some(&message),
        detail,
        detail_log,
        hint,
        context,
        internal_query,
        statement,
        position,
        internal_position: position,
        parameters: &parameters,
    };
    let masked = line.mask();
    let are_texts = [Some(&message[..]), parameter]
        .into_iter()
        .chain([detail, detail_log, hint, context, internal_query, statement])
        .flatten()
        .all(|part| std::str::from_utf8(part).is_ok());
    for (before, after) in [
        (line.message, &masked.message),
        (detail, &masked.detail),
        (detail_log, &masked.detail_log),
        (hint, &masked.hint),
        (context, &masked.context),
        (internal_query, &masked.internal_query),
        (statement, &masked.statement),
    ] {
        assert_eq!(before.is_some(), after.is_some(), "parts neither come nor go");
        let (Some(before), Some(after)) = (before, after) else { continue };
        assert!(after.len() <= bound(before.len()), "{} from {}", after.len(), before.len());
        assert!(!are_texts || std::str::from_utf8(after).is_ok(), "torn characters");
    }
    if let Some((list, read)) = text::parameters(&message) {
        assert!(read <= message.len() && list.len() <= bound(read));
    }
}

/// The value that must be nowhere in the log. In none of the words around it.
const CANARY: &str = "S3CRETcanary";

/// What may stand around literals: all of it complete, so that what follows is code again.
const AROUND: [&str; 16] = [
    "SELECT meshhook_secrets.secret_put($1,",
    "\"project_id\"",
    "\"o'neil\"",
    "-- don't \"do\" $$ this\n",
    "/* it's /* nested */ ' \" $$ */",
    "'',",
    "$$$$",
    "E'\\'',",
    "U&\"d\\0061t\"",
    "1..10",
    "a$1$b",
    "::text",
    "- -",
    "x AS y",
    ");",
    "\n",
];

/// A statement with literals that hold the value, and messages that repeat it as PostgreSQL does: it is gone.
pub fn values(data: &[u8]) {
    let mut source = Source(data);
    let flags = source.byte();
    let cut = usize::from(u16::from_le_bytes(source.array()));
    let template = source.byte();
    let (before, after) = (harmless(&mut source), harmless(&mut source));
    let value = format!("{before}{CANARY}{after}");
    let mut statement = String::new();
    let mut literals = 0;
    while !source.is_empty() && statement.len() < 4096 {
        let kind = source.byte();
        match usize::from(kind).checked_sub(AROUND.len()) {
            None => statement.push_str(AROUND[usize::from(kind)]),
            Some(kind) => {
                statement.push_str(&literal(&value, kind));
                // Or it might go on in the next line.
                statement.push(',');
                literals += 1;
            }
        }
        statement.push(' ');
    }
    let masked = sql::mask(statement.as_bytes(), Also::default());
    check("statement", &statement, Some(&masked));
    // PostgreSQL cuts statements off.
    let end = (0..=cut.min(statement.len())).rev().find(|at| statement.is_char_boundary(*at));
    let begun = &statement[..end.unwrap_or(0)];
    check("cut", begun, Some(&sql::mask(begun.as_bytes(), Also::default())));

    let parameter = [Cow::from(value.as_bytes())];
    // Known is the value as a literal of the statement, or as its parameter.
    let parameters = if literals == 0 || flags & 1 != 0 { &parameter[..] } else { &[] };
    let doubled = value.replace('\'', "''");
    let (format, message, state) = match template % 8 {
        0 => (FORMATS[7], format!("invalid input syntax for type uuid: \"{value}\""), b"22P02"),
        1 => ("%s", format!("refused {value} today"), b"P0001"),
        2 => (FORMATS[1], format!("statement: {statement}"), b"00000"),
        3 => (FORMATS[9], format!("syntax error at or near \"'{doubled}\""), b"42601"),
        4 => (FORMATS[10], format!("cron job 7 starting: {statement}"), b"00000"),
        5 => (FORMATS[2], format!("duration: 0.1 ms  statement: {statement}"), b"00000"),
        6 => (FORMATS[7], format!("ungültige Eingabe für uuid: »{value}«"), b"22P02"),
        _ => ("%s: %s", format!("fehlgeschlagen: {value}"), b"XX000"),
    };
    let detail = match template / 8 % 8 {
        0 => format!("parameters: $1 = '{doubled}', $2 = NULL"),
        1 => format!("Key (name)=({value}) already exists."),
        2 => format!("Failing row contains (1, {value})."),
        3 => format!("prepare: PREPARE p AS {statement}"),
        4 => format!("Token \"{value}\" is invalid."),
        5 => format!(
            "Process 1 waits for ShareLock on transaction 2; blocked by process 3.\nProcess 1: {begun}"
        ),
        6 => value.clone(),
        _ => format!("line 1: {value}\n^"),
    };
    let context = match template / 64 {
        0 => {
            format!("SQL statement \"{statement}\"\nPL/pgSQL function f() line 3 at SQL statement")
        }
        1 => format!("PL/pgSQL function {value}() line 1 at RAISE"),
        2 => format!("unnamed portal with parameters: $1 = '{doubled}'"),
        _ => format!("COPY t, line 1, column c: \"{value}\""),
    };
    let line = Line {
        ran: flags & 2 != 0,
        state: *state,
        format: format.as_bytes(),
        message: Some(message.as_bytes()),
        detail: Some(detail.as_bytes()),
        detail_log: Some(detail.as_bytes()),
        hint: Some(value.as_bytes()),
        context: Some(context.as_bytes()),
        internal_query: (flags & 4 != 0).then_some(begun.as_bytes()),
        statement: Some(statement.as_bytes()),
        parameters,
        ..Line::default()
    };
    let masked = line.mask();
    check("message", &message, masked.message.as_deref());
    check("detail", &detail, masked.detail.as_deref());
    check("detail for the log", &detail, masked.detail_log.as_deref());
    check("hint", &value, masked.hint.as_deref());
    check("context", &context, masked.context.as_deref());
    check("internal query", begun, masked.internal_query.as_deref());
    check("statement", &statement, masked.statement.as_deref());
}

/// A text of any characters, but for NUL, which no text of PostgreSQL's holds.
fn harmless(source: &mut Source<'_>) -> String {
    let length = source.byte() % 24;
    String::from_utf8_lossy(source.bytes(length.into())).replace('\0', "")
}

/// The value as a literal of this kind.
fn literal(value: &str, kind: usize) -> String {
    let doubled = value.replace('\'', "''");
    let escaped = value.replace('\\', "\\\\");
    let units = |start: &str| -> String {
        value.encode_utf16().map(|unit| format!("{start}{unit:04x}")).collect()
    };
    match kind % 11 {
        0 => format!("'{doubled}'"),
        1 => format!("E'{}'", escaped.replace('\'', "\\'")),
        2 => format!("e'{}'", escaped.replace('\'', "''")),
        3 => format!("U&'{}'", doubled.replace('\\', "\\\\")),
        4 => {
            // A tag that does not end the value early, not even together with the value's end.
            let ends = |tag: &String| format!("{value}{tag}").find(tag) == Some(value.len());
            let tag = (0..).map(|number| format!("$t{number}$")).find(ends).unwrap_or_default();
            format!("{tag}{value}{tag}")
        }
        5 => format!("E''\n '{}'", escaped.replace('\'', "\\'")),
        6 => format!("N'{doubled}'"),
        7 => {
            let number = |(at, byte)| match at % 2 {
                0 => format!("\\x{byte:x}"),
                _ => format!("\\{byte:03o}"),
            };
            format!("E'{}'", value.bytes().enumerate().map(number).collect::<String>())
        }
        8 => format!("E'{}'", units("\\u")),
        9 => format!("U&'{}'", units("\\")),
        _ => format!("U&'{}' UESCAPE '!'", units("!")),
    }
}

fn check(what: &str, before: &str, masked: Option<&[u8]>) {
    let Some(masked) = masked else { return };
    let masked = String::from_utf8_lossy(masked);
    assert!(!masked.contains(CANARY), "{what}: {before:?} became {masked:?}");
}
