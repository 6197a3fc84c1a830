//! A secret's name is `[A-Za-z_][A-Za-z0-9_.-]*`, 1 to 255 characters, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use meshhook_secrets_core::{error::NameError, limits::NAME_MAX, name::SecretName};
use proptest::prelude::*;

#[test]
fn usual_names_are_taken_as_they_are() {
    for name in ["A", "z", "_", "API_KEY", "api.key", "a-b", "_9", "a..b", "Z-", "__", "a1.B-c_d"] {
        assert_eq!(SecretName::parse(name).unwrap().as_str(), name);
    }
}

#[test]
fn every_ascii_character_in_first_and_later_place() {
    for byte in 0..=127_u8 {
        let c = char::from(byte);
        let may_start = matches!(c, 'A'..='Z' | 'a'..='z' | '_');
        let may_follow = may_start || matches!(c, '0'..='9' | '.' | '-');

        let first = format!("{c}x");
        let expected = if may_start { Ok(first.as_str()) } else { Err(NameError::FirstCharacter) };
        assert_eq!(parse(&first), expected, "{c:?} first");

        for later in [format!("x{c}"), format!("x{c}x")] {
            let expected = if may_follow { Ok(later.as_str()) } else { Err(NameError::Character) };
            assert_eq!(parse(&later), expected, "{c:?} later");
        }
    }
}

#[test]
fn look_alikes_from_beyond_ascii_are_refused() {
    for c in [
        '\u{430}',  // Cyrillic a
        '\u{ff21}', // fullwidth A
        '\u{e9}',   // e with acute
        '\u{131}',  // Turkish dotless i
        '\u{212a}', // Kelvin sign: lower case makes it an ASCII k
        '\u{301}',  // combining acute
        '\u{663}',  // Arabic digit three
        '\u{200d}', // zero-width joiner
        '\u{a0}',   // no-break space
        '\u{202e}', // right-to-left override
    ] {
        assert_eq!(parse(&format!("{c}x")), Err(NameError::FirstCharacter));
        assert_eq!(parse(&format!("x{c}")), Err(NameError::Character));
    }
}

#[test]
fn length() {
    assert_eq!(NAME_MAX, 255);
    assert_eq!(parse(""), Err(NameError::Empty));
    let longest = "n".repeat(255);
    assert_eq!(parse(&longest), Ok(longest.as_str()));
    assert_eq!(parse(&"n".repeat(256)), Err(NameError::TooLong));
    // Characters count, not bytes: 255 of two bytes each are not too long, but not allowed.
    assert_eq!(parse(&"é".repeat(255)), Err(NameError::FirstCharacter));
    assert_eq!(parse(&"é".repeat(256)), Err(NameError::TooLong));
}

#[test]
fn case_and_every_character_distinguish() {
    assert_ne!(SecretName::parse("Key"), SecretName::parse("KEY"));
    assert_ne!(SecretName::parse("a.b"), SecretName::parse("a_b"));
}

proptest! {
    #[test]
    fn the_rule_holds_for_any_text(text in ".{0,300}") {
        let characters = text.chars().count();
        let legal = (1..=255).contains(&characters)
            && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        prop_assert_eq!(SecretName::parse(&text).is_ok(), legal);
    }

    #[test]
    fn every_legal_name_is_taken(name in "[A-Za-z_][A-Za-z0-9_.-]{0,254}") {
        prop_assert_eq!(parse(&name), Ok(name.as_str()));
    }
}

#[test]
fn messages_never_repeat_the_name() {
    for name in ["9hunter2", "hunter2!", &"hunter2".repeat(40)] {
        let error = SecretName::parse(name).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

fn parse(text: &str) -> Result<&str, NameError> {
    SecretName::parse(text).map(|name| name.as_str())
}
