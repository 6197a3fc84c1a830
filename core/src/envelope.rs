//! The byte format of every wrap and seal.
//!
//! ```text
//! format (1) = 0x01 ‖ algorithm (1) = 0x01 ‖ nonce (24) ‖ ciphertext ‖ tag (16)
//! ```
//!
//! Algorithm 1 is XAES-256-GCM (C2SP, <https://c2sp.org/XAES-256-GCM>): AES-256-GCM under a key
//! derived from the first half of a random 192-bit nonce, so that no count of messages per key has
//! to be kept (80 bits of collision margin at 2^32 messages, where plain AES-GCM of NIST SP
//! 800-38D, section 8.3, must stop).

use crate::{error::Error, limits::KEY_LEN, random};
use xaes_256_gcm::{
    Nonce, Xaes256Gcm,
    aead::{Aead, KeyInit, Payload},
};
use zeroize::{Zeroizing, zeroize_stack};

/// The only format.
pub const FORMAT: u8 = 1;
/// XAES-256-GCM.
pub const ALGORITHM_XAES_256_GCM: u8 = 1;
/// Bytes that an envelope is longer than its content: header 2, nonce 24, tag 16.
pub const OVERHEAD: usize = HEADER_LEN + NONCE_LEN + TAG_LEN;

const HEADER_LEN: usize = 2;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// Stack that sealing and opening may have used for key schedules, with a margin: measured 10 KiB
/// optimised, 22 KiB not optimised.
const STACK: usize = 32 * 1024;

/// Seals `content` under `key`, bound to `aad`, with a fresh nonce.
pub(crate) fn seal(key: &[u8; KEY_LEN], aad: &[u8], content: &[u8]) -> Result<Vec<u8>, Error> {
    let nonce = random::array::<NONCE_LEN>()?;
    let sealed = encrypt(key, &nonce, aad, content);
    zeroize_stack::<STACK>();
    let mut envelope = Vec::with_capacity(content.len() + OVERHEAD);
    envelope.extend_from_slice(&[FORMAT, ALGORITHM_XAES_256_GCM]);
    envelope.extend_from_slice(&nonce);
    envelope.extend_from_slice(&sealed?);
    Ok(envelope)
}

/// Opens `envelope` with `key` if it was sealed under it and bound to `aad`.
pub(crate) fn open(
    key: &[u8; KEY_LEN],
    aad: &[u8],
    envelope: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (nonce, sealed) = parse(envelope)?;
    let opened = decrypt(key, nonce, aad, sealed);
    zeroize_stack::<STACK>();
    opened
}

/// Splits an envelope into nonce and ciphertext with tag.
fn parse(envelope: &[u8]) -> Result<(&[u8; NONCE_LEN], &[u8]), Error> {
    if envelope.len() < OVERHEAD {
        return Err(Error::EnvelopeTooShort);
    }
    let (header, body) = envelope.split_at(HEADER_LEN);
    if header[0] != FORMAT {
        return Err(Error::UnknownFormat(header[0]));
    }
    if header[1] != ALGORITHM_XAES_256_GCM {
        return Err(Error::UnknownAlgorithm(header[1]));
    }
    body.split_first_chunk().ok_or(Error::EnvelopeTooShort)
}

// Frames of their own, so that `zeroize_stack` afterwards covers what they left behind.

#[inline(never)]
fn encrypt(
    key: &[u8; KEY_LEN],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    content: &[u8],
) -> Result<Vec<u8>, Error> {
    Xaes256Gcm::new(key.into())
        .encrypt(&Nonce::from(*nonce), Payload { msg: content, aad })
        .map_err(|_| Error::TooLarge)
}

#[inline(never)]
fn decrypt(
    key: &[u8; KEY_LEN],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    Xaes256Gcm::new(key.into())
        .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad })
        .map(Zeroizing::new)
        .map_err(|_| Error::Authentication)
}
