//! The functions that values go through, and whether a text mentions one.

use super::lexer::is_word;

/// Ours.
pub const VALUE_FUNCTIONS: [&str; 5] =
    ["secret_put", "secret_put_bytes", "secret_get", "secret_get_bytes", "secret_get_many"];

/// Words of every other statement. A function of such a name would have everything masked.
const KEYWORDS: [&str; 83] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "delete",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "insert",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "set",
    "some",
    "symmetric",
    "table",
    "text",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "update",
    "user",
    "using",
    "values",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];

/// Names of functions, in lower case.
#[derive(Clone, Debug)]
pub struct Names {
    names: Vec<Vec<u8>>,
    /// The bytes that a name can start with.
    first: [bool; 256],
}

impl Names {
    /// Ours, and those of a comma-separated list: with or without a schema, arguments and quotes. Its
    /// keywords do not count.
    pub fn new(list: &[u8]) -> Self {
        let more = items(list).into_iter().filter_map(bare);
        let names: Vec<_> =
            VALUE_FUNCTIONS.iter().map(|name| name.as_bytes().to_vec()).chain(more).collect();
        Self::of(names)
    }

    /// These, which are in lower case.
    pub fn of(names: Vec<Vec<u8>>) -> Self {
        let mut first = [false; 256];
        for byte in names.iter().filter_map(|name| name.first()) {
            first[usize::from(*byte)] = true;
            first[usize::from(byte.to_ascii_uppercase())] = true;
        }
        Self { names, first }
    }

    /// Whether one of them stands somewhere in a text as a whole word, in upper or lower case, or
    /// may: an identifier in Unicode escapes could be any.
    pub fn mentioned_in(&self, text: &[u8]) -> bool {
        let mut inside = false;
        for (at, byte) in text.iter().enumerate() {
            let starts = !inside;
            inside = is_word(*byte);
            if !starts {
                continue;
            }
            let rest = &text[at..];
            if self.first[usize::from(*byte)] && self.names.iter().any(|name| begins(rest, name)) {
                return true;
            }
            if matches!(rest, [b'u' | b'U', b'&', b'"', ..]) {
                return true;
            }
        }
        false
    }
}

/// Whether a text begins with this word.
fn begins(text: &[u8], name: &[u8]) -> bool {
    text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        && !text.get(name.len()).copied().is_some_and(is_word)
}

/// The parts of a list: between commas outside of quotes and parentheses, or between all commas if
/// those are not closed.
fn items(list: &[u8]) -> Vec<&[u8]> {
    let (mut depth, mut quoted) = (0_usize, false);
    let outside = list.split(|byte| {
        match byte {
            b'"' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        *byte == b',' && !quoted && depth == 0
    });
    let items = outside.collect();
    if quoted || depth > 0 { list.split(|byte| *byte == b',').collect() } else { items }
}

/// `"App".Store_Secret(uuid)` is `store_secret`.
fn bare(item: &[u8]) -> Option<Vec<u8>> {
    let name = item.split(|byte| *byte == b'(').next()?;
    let name = name.rsplit(|byte| *byte == b'.').next()?;
    let is_kept = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b')');
    let name: Vec<u8> = name.iter().copied().filter(is_kept).collect();
    let name = name.to_ascii_lowercase();
    let is_keyword = KEYWORDS.iter().any(|keyword| keyword.as_bytes() == name);
    (!name.is_empty() && !is_keyword).then_some(name)
}
