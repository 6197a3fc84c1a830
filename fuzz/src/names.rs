//! Names: of secrets, of charsets, of the functions that values go through, and of what was refused.

use super::source::Source;
use meshhook_secrets_core::{
    audit::Outcome,
    generate::{self, Charset},
    limits::{GENERATE_MAX, NAME_MAX},
    name::SecretName,
    redact::{denial, names::Names},
};

/// A name is what the rules say. Names of functions are found in the list that they come from.
pub fn names(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let is_name = (1..=NAME_MAX).contains(&data.len())
            && !data[0].is_ascii_digit()
            && !matches!(data[0], b'.' | b'-')
            && data.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte));
        let parsed = SecretName::parse(text);
        assert_eq!(parsed.is_ok(), is_name, "{parsed:?}");
        assert!(parsed.is_err() || parsed.is_ok_and(|name| name.as_str() == text));
        for char in text.chars().take(200) {
            let allowed = char.is_ascii_alphanumeric() || "_.-".contains(char);
            assert_eq!(SecretName::parse(&format!("A{char}")).is_ok(), allowed, "{char:?}");
        }
        assert_eq!(text.parse::<Charset>().is_ok(), Charset::NAMES.contains(&text));
        assert!(Outcome::parse(text).is_none_or(|outcome| outcome.as_str() == text));
    }

    let mut source = Source(data);
    let length = i32::from(i16::from_le_bytes(source.array()));
    let charset = source.one_of(&[
        Charset::Base64Url,
        Charset::Hex,
        Charset::Alphanumeric,
        Charset::Digits,
        Charset::Printable,
    ]);
    let expected = (1..=GENERATE_MAX as i32).contains(&length);
    let made = generate::generate(length, charset);
    assert_eq!(made.as_ref().is_ok_and(|it| it.len() == length as usize), expected);

    let list = source.some_bytes();
    let text = source.0;
    let names = Names::new(list);
    let found = names.mentioned_in(text);
    let upper = names.mentioned_in(&text.to_ascii_uppercase());
    assert_eq!(found, upper, "case does not matter");
    // Ours are always among them, whatever the list says.
    let call = [text, b" secret_get(".as_slice()].concat();
    assert!(names.mentioned_in(&call));
}

/// What was refused is one of our objects, and only messages of missing grants tell.
pub fn denials(data: &[u8]) {
    let mut source = Source(data);
    let format = match source.byte() % 4 {
        0 => source.some_bytes(),
        1 => b"permission denied for function %s".as_slice(),
        2 => b"permission denied for schema %s".as_slice(),
        _ => b"permission denied for table %s".as_slice(),
    };
    let message = match source.flag() {
        true => [b"permission denied for ".as_slice(), source.some_bytes()].concat(),
        false => source.some_bytes().to_vec(),
    };
    let path = source.some_bytes();
    let statement = source.0;
    let Some(name) = denial::refused(format, &message, statement, path) else { return };
    assert!(format.starts_with(b"permission denied for "));
    let known = denial::FUNCTIONS.contains(&name) || denial::RELATIONS.contains(&name);
    assert!(known || name == denial::SCHEMA);
    let holds = |text: &[u8]| {
        text.to_ascii_lowercase().windows(name.len()).any(|part| part == name.as_bytes())
    };
    // In doubt: an identifier in Unicode escapes could be any.
    let in_doubt = message.to_ascii_lowercase().windows(3).any(|part| part == b"u&\"");
    assert!(holds(&message) || holds(statement) || in_doubt, "{name} is mentioned nowhere");
}
