//! Root key sources are read strictly, and what is wrong with them is told by line, never by
//! content.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use base64ct::{Base64, Base64Unpadded, Base64Url, Encoding};
use meshhook_secrets_core::{
    Error,
    error::RootKeyError::{self, Malformed, NoKey, NotText, Repeated, TooMany, Trivial},
    limits::ROOT_KEYS_MAX,
    root_key::parse,
};
use proptest::prelude::*;

#[test]
fn hex_in_any_case() {
    let lower = base16ct::lower::encode_string(&key(1));
    let upper = base16ct::upper::encode_string(&key(1));
    let mixed: String = lower
        .chars()
        .enumerate()
        .map(|(i, c)| if i % 3 == 0 { c.to_ascii_uppercase() } else { c })
        .collect();
    assert!(mixed != lower && mixed != upper);
    for text in [lower, upper, mixed] {
        assert_eq!(keys(&text), [key(1)]);
    }
}

#[test]
fn base64_with_and_without_padding() {
    assert_eq!(keys(&Base64::encode_string(&key(1))), [key(1)]);
    assert_eq!(keys(&Base64Unpadded::encode_string(&key(1))), [key(1)]);
}

#[test]
fn the_output_of_the_usual_commands() {
    // `openssl rand -hex 32` and `openssl rand -base64 32` end with a newline.
    assert_eq!(keys(&format!("{}\n", hex(1))), [key(1)]);
    assert_eq!(keys(&format!("{}\n", Base64::encode_string(&key(1)))), [key(1)]);
}

#[test]
fn comments_blank_lines_and_white_space_do_not_count() {
    let content = format!(
        "# root keys of production\n\n   \n\t{}  # since May\n#{}\n\n  {}#\n#",
        hex(1),
        hex(9),
        hex(2)
    );
    assert_eq!(keys(&content), [key(1), key(2)]);
}

#[test]
fn lines_may_end_as_in_dos_files() {
    let content = format!("# keys\r\n{}\r\n\r\n{}\r\n", hex(1), hex(2));
    assert_eq!(keys(&content), [key(1), key(2)]);
}

#[test]
fn the_first_key_is_the_current_one_and_the_order_is_kept() {
    let content = [4, 2, 3, 1].map(hex).join("\n");
    assert_eq!(keys(&content), [4, 2, 3, 1].map(key));
}

#[test]
fn as_many_keys_as_allowed_and_no_more() {
    assert_eq!(ROOT_KEYS_MAX, 8);
    let eight: Vec<String> = (1..=8).map(hex).collect();
    assert_eq!(keys(&eight.join("\n")).len(), 8);
    let nine: Vec<String> = (1..=9).map(hex).collect();
    assert_eq!(error(nine.join("\n")), TooMany);
    // Comments are no keys.
    assert_eq!(keys(&(eight.join("\n") + "\n# the end\n")).len(), 8);
}

#[test]
fn no_key_at_all() {
    for content in ["", "\n", "\r\n\r\n", "   \t ", "# only\n# comments", "#"] {
        assert_eq!(error(content), NoKey, "{content:?}");
    }
}

#[test]
fn what_is_no_key_is_malformed_on_its_line() {
    let url_alphabet = Base64Url::encode_string(&[0xfb; 32]);
    assert!(url_alphabet.contains('-') || url_alphabet.contains('_'));
    let padded = Base64::encode_string(&key(1));
    let unpadded = Base64Unpadded::encode_string(&key(1));
    for line in [
        "hunter2",
        &hex(1)[1..],
        &format!("{}0", hex(1)),
        &format!("0x{}", &hex(1)[2..]),
        &format!("{}g", &hex(1)[1..]),
        &format!("{} {}", &hex(1)[..32], &hex(1)[32..]),
        &hex(1).replace('0', "\u{41e}"),
        &Base64::encode_string(&key(1)[..31]),
        &Base64Unpadded::encode_string(&[7; 33]),
        &Base64::encode_string(&[7; 48]),
        &format!("{unpadded}*"),
        &format!("{}=", &padded[..42]),
        &format!("{}=", &unpadded[1..]),
        &url_alphabet,
        url_alphabet.trim_end_matches('='),
        "\u{0}",
    ] {
        assert_eq!(error(line), Malformed { line: 1 }, "{line:?}");
        let later = format!("# one\r\n{}\r\n\r\n{line}\r\n", hex(2));
        assert_eq!(error(later), Malformed { line: 4 }, "{line:?}");
    }
}

#[test]
fn base64_with_stray_last_bits_is_malformed() {
    // 43 characters hold 258 bits; the last two must be zero, or one key had four spellings.
    let text = Base64Unpadded::encode_string(&[0x55, 0xaa].repeat(16));
    let (start, last) = text.split_at(42);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let place = alphabet.find(last).unwrap();
    assert_eq!(place % 4, 0);
    for stray in &alphabet.as_bytes()[place + 1..place + 4] {
        let stray = char::from(*stray);
        assert_eq!(error(format!("{start}{stray}")), Malformed { line: 1 });
        assert_eq!(error(format!("{start}{stray}=")), Malformed { line: 1 });
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_key() {
    assert_eq!(parse(format!("\u{feff}{}", hex(1)).as_bytes()).unwrap().len(), 1);
    // Only at the very beginning.
    assert_eq!(error(format!("{}\n\u{feff}{}", hex(1), hex(2))), Malformed { line: 2 });
}

#[test]
fn text_in_another_encoding_is_not_text() {
    let utf16: Vec<u8> = hex(1).encode_utf16().flat_map(u16::to_le_bytes).collect();
    for content in [
        b"\xff".to_vec(),
        [b"# caf\xe9\n".as_slice(), hex(1).as_bytes()].concat(),
        [b"\xff\xfe".as_slice(), &utf16].concat(),
    ] {
        assert_eq!(error(content), NotText);
    }
}

#[test]
fn a_repeated_byte_is_no_key() {
    for byte in 0..=255_u8 {
        let content = base16ct::lower::encode_string(&[byte; 32]);
        assert_eq!(error(content), Trivial { line: 1 });
    }
    let content = format!("{}\n\n{}", hex(1), Base64::encode_string(&[0; 32]));
    assert_eq!(error(content), Trivial { line: 3 });
}

#[test]
fn a_key_counts_once_however_it_is_written() {
    let base64 = Base64::encode_string(&key(1));
    for again in [hex(1), hex(1).to_uppercase(), base64] {
        let content = format!("{}\n{}\n# again:\n{again}", hex(1), hex(2));
        assert_eq!(error(content), Repeated { line: 4 });
    }
}

#[test]
fn errors_never_show_content() {
    let secret = "5eC9e7";
    let (a, b) = (secret.repeat(11), secret.repeat(9));
    for content in [
        secret.to_owned(),
        a[..64].to_owned() + "x",
        format!("{}\n{}", &a[..64], &a[..64]),
        format!("{}=", &b[..43]),
    ] {
        let Err(error) = parse(content.as_bytes()) else { panic!("accepted") };
        let shown = format!("{error} {error:?} {error:#?}");
        for part in [secret, &secret.to_lowercase(), "5e", "c9"] {
            assert!(!shown.to_lowercase().contains(&part.to_lowercase()), "{shown}");
        }
    }
}

#[test]
fn messages_name_the_line() {
    let shown = |line: &str| Error::from(error(format!("#\n{line}"))).to_string();
    assert!(shown("x").contains("line 2"));
    assert!(shown(&"0".repeat(64)).contains("line 2"));
    assert!(shown(&format!("{}\n{}", hex(1), hex(1))).contains("line 3"));
}

proptest! {
    #[test]
    fn any_bytes_give_keys_or_a_clean_error(content in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&content);
    }

    #[test]
    fn any_text_gives_keys_or_a_clean_error(
        content in "([0-9a-fA-F]{64}|[A-Za-z0-9+/]{43}=?|#.*|.{0,70}|[=]{43,44}|\r|\n){0,9}"
    ) {
        if let Ok(keys) = parse(content.as_bytes()) {
            prop_assert!((1..=ROOT_KEYS_MAX).contains(&keys.len()));
        }
    }

    #[test]
    fn every_key_is_read_back_from_every_spelling(key: [u8; 32]) {
        prop_assume!(key.iter().any(|byte| *byte != key[0]));
        for text in [
            base16ct::lower::encode_string(&key),
            base16ct::upper::encode_string(&key),
            Base64::encode_string(&key),
            Base64Unpadded::encode_string(&key),
        ] {
            prop_assert_eq!(keys(&text), [key]);
        }
    }

    #[test]
    fn the_line_is_counted_right(before in prop::collection::vec("#? {0,3}", 0..40)) {
        let mut content = before.join("\n");
        if !before.is_empty() {
            content.push('\n');
        }
        content.push_str("nonsense");
        prop_assert_eq!(error(content), Malformed { line: before.len() + 1 });
    }
}

fn key(number: u8) -> [u8; 32] {
    std::array::from_fn(|i| number.wrapping_mul(31) ^ (i as u8).wrapping_mul(7))
}

fn hex(number: u8) -> String {
    base16ct::lower::encode_string(&key(number))
}

fn keys(content: &str) -> Vec<[u8; 32]> {
    let keys = parse(content.as_bytes()).unwrap();
    keys.iter().map(|key| *key.expose()).collect()
}

fn error(content: impl AsRef<[u8]>) -> RootKeyError {
    match parse(content.as_ref()) {
        Err(Error::RootKey(error)) => error,
        other => panic!("{other:?}"),
    }
}
