//! What a literal stands for.

use super::lexer::Tokens;

/// How it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Backslashes are characters like any other.
    Plain,
    /// As `E'\n\x41\101\u0041'`.
    Escapes,
    /// As `U&'\0041\+000041'`.
    Unicode,
}

/// Why it cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unclear {
    /// PostgreSQL refuses such a literal.
    Refused,
    /// It depends on the server's version, or memory is short.
    Open,
}

/// What the literal with this between its quotes stands for, in UTF-8: the extension is in no database of another
/// encoding.
pub(crate) fn meant(body: &[u8], reading: Reading) -> Result<Vec<u8>, Unclear> {
    let mut out = Vec::new();
    // It is never longer than it is written.
    out.try_reserve_exact(body.len()).map_err(|_| Unclear::Open)?;
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        match (byte, body.get(at + 1)) {
            (b'\\', Some(_)) if reading != Reading::Plain => {
                let rest = &body[at..];
                let (meant, length) = match reading {
                    Reading::Unicode => of_unicode(rest)?,
                    _ => of_escapes(rest)?,
                };
                match meant {
                    Meant::Byte(byte) => out.push(byte),
                    Meant::Character(char) => {
                        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                at += length;
            }
            (b'\'', Some(b'\'')) => {
                out.push(b'\'');
                at += 2;
            }
            // It goes on at the quote on a later line.
            (b'\'', _) => {
                at = Tokens::of(body).continuation(at + 1).unwrap_or(at) + 1;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    Ok(out)
}

enum Meant {
    Byte(u8),
    Character(char),
}

/// What the escape means that the text begins with, and its length.
fn of_escapes(text: &[u8]) -> Result<(Meant, usize), Unclear> {
    let digits = |from: usize, most: usize, base: u32| {
        let digits = text[from..].iter().take(most);
        digits.map_while(|byte| char::from(*byte).to_digit(base)).fold(
            (0, from),
            |(sum, at), digit| {
                // Of three octal digits, what fits into a byte counts.
                ((sum * base + digit) as u8 as u32, at + 1)
            },
        )
    };
    let (byte, length) = match text[1] {
        b'n' => (b'\n', 2),
        b't' => (b'\t', 2),
        b'r' => (b'\r', 2),
        b'b' => (8, 2),
        b'f' => (12, 2),
        // A vertical tab, or to older servers a letter.
        b'v' => return Err(Unclear::Open),
        b'0'..=b'7' => {
            let (byte, length) = digits(1, 3, 8);
            (byte as u8, length)
        }
        b'x' => match digits(2, 2, 16) {
            (_, 2) => (b'x', 2),
            (byte, length) => (byte as u8, length),
        },
        b'u' | b'U' => {
            return character(text, |text| match text {
                [b'\\', b'u', ..] => number(text, 2, 4),
                [b'\\', b'U', ..] => number(text, 2, 8),
                _ => None,
            });
        }
        other => (other, 2),
    };
    Ok((Meant::Byte(byte), length))
}

/// The same for a literal with Unicode escapes.
fn of_unicode(text: &[u8]) -> Result<(Meant, usize), Unclear> {
    if text[1] == b'\\' {
        return Ok((Meant::Byte(b'\\'), 2));
    }
    character(text, |text| match text {
        [b'\\', b'+', ..] => number(text, 2, 6),
        [b'\\', ..] => number(text, 1, 4),
        _ => None,
    })
}

/// The character of an escape, or of two that are a surrogate pair.
fn character(
    text: &[u8],
    code: impl Fn(&[u8]) -> Option<(u32, usize)>,
) -> Result<(Meant, usize), Unclear> {
    let (mut char, mut length) = code(text).ok_or(Unclear::Refused)?;
    if (0xd800..0xdc00).contains(&char) {
        let (low, more) = code(&text[length..]).ok_or(Unclear::Refused)?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(Unclear::Refused);
        }
        char = 0x10000 + ((char - 0xd800) << 10) + (low - 0xdc00);
        length += more;
    }
    let char = char::from_u32(char).ok_or(Unclear::Refused)?;
    Ok((Meant::Character(char), length))
}

/// The number that this many hexadecimal digits are, and where they end.
fn number(text: &[u8], from: usize, digits: usize) -> Option<(u32, usize)> {
    let end = from + digits;
    let digits = text.get(from..end)?.iter();
    let number = digits
        .map(|byte| char::from(*byte).to_digit(16))
        .try_fold(0, |sum, digit| Some(sum << 4 | digit?))?;
    Some((number, end))
}
