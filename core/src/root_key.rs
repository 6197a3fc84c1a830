//! The content of a root key source: one key a line, the current one first, then previous ones
//! that are still accepted; `#` starts a comment; blank lines do not count. A key is 64
//! hexadecimal digits or the base64 (RFC 4648, standard alphabet, padding optional) of 32 bytes.

use crate::{
    error::{Error, RootKeyError},
    key::RootKey,
    limits::{KEY_LEN, ROOT_KEYS_MAX},
};
use base64ct::{Base64, Base64Unpadded, Encoding};
use zeroize::Zeroizing;

/// Reads root keys, the current one first. At least one, at most [`ROOT_KEYS_MAX`].
///
/// # Errors
/// A [`RootKeyError`] that names the line, never its content.
pub fn parse(content: &[u8]) -> Result<Vec<RootKey>, Error> {
    let text = std::str::from_utf8(content).map_err(|_| RootKeyError::NotText)?;
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut keys: Vec<RootKey> = Vec::with_capacity(ROOT_KEYS_MAX);
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if keys.len() == ROOT_KEYS_MAX {
            return Err(RootKeyError::TooMany.into());
        }
        let key = decode(line).ok_or(RootKeyError::Malformed { line: line_number })?;
        if key.expose().iter().all(|byte| *byte == key.expose()[0]) {
            return Err(RootKeyError::Trivial { line: line_number }.into());
        }
        if keys.iter().any(|known| known.expose() == key.expose()) {
            return Err(RootKeyError::Repeated { line: line_number }.into());
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(RootKeyError::NoKey.into());
    }
    Ok(keys)
}

/// One key, decoded in constant time (`base16ct`, `base64ct`).
fn decode(line: &str) -> Option<RootKey> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    let decoded = match line.len() {
        64 => base16ct::mixed::decode(line, bytes.as_mut_slice()).ok()?.len(),
        44 => Base64::decode(line, bytes.as_mut_slice()).ok()?.len(),
        43 => Base64Unpadded::decode(line, bytes.as_mut_slice()).ok()?.len(),
        _ => return None,
    };
    (decoded == KEY_LEN).then(|| RootKey::from_bytes(&bytes))
}
