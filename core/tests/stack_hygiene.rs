//! No key, no key derived from it and no plaintext stays on the stack after the call.
//!
//! The stack below the caller's frame is cleaned before the call and searched after it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use hkdf::Hkdf;
use meshhook_secrets_core::{
    identity::Identity,
    key::{Dek, Kek, RootKey},
    root_key,
};
use sha2::{Sha256, block_api::compress256};
use std::{hint::black_box, ptr::with_exposed_provenance};
use support::{secrets::*, *};
use xaes_256_gcm::{
    aead::{Aead, KeyInit, Payload},
    aes::{Aes256, cipher::BlockCipherEncrypt},
    aes_gcm::{Aes256Gcm, Nonce},
};

#[test]
fn the_search_sees_what_is_left_on_the_stack() {
    #[inline(never)]
    fn leave_on_the_stack() {
        let mut deep = [0_u8; 1024];
        deep[500..][..LEN].copy_from_slice(black_box(&MARKER));
        black_box(&deep);
    }
    assert!(holds(&stack_after(leave_on_the_stack), &MARKER));
    assert!(!holds(&stack_after(|| ()), &MARKER));
}

#[test]
fn sealing_and_opening_leave_neither_key_nor_value_on_the_stack() {
    let (key, value) = (Dek::from_bytes(&OTHER), MARKER);
    let mut sealed = vec![];
    let stack = stack_after(|| sealed = key.seal(&value, &VALUE_IDENTITY).unwrap());
    for secret in [OTHER, value, message_key(&OTHER, &sealed)] {
        assert!(!holds(&stack, &secret));
    }
    let stack = stack_after(|| drop(key.open(&sealed, &VALUE_IDENTITY)));
    for secret in [OTHER, value, message_key(&OTHER, &sealed)] {
        assert!(!holds(&stack, &secret));
    }
}

#[test]
fn wrapping_and_unwrapping_leave_no_key_on_the_stack() {
    let (key, wrapped_key) = (RootKey::from_bytes(&OTHER), Kek::from_bytes(&MARKER));
    let mut wrapped = vec![];
    let stack = stack_after(|| wrapped = key.wrap(&wrapped_key, &KEK_IDENTITY).unwrap());
    for secret in [OTHER, MARKER, message_key(&OTHER, &wrapped)] {
        assert!(!holds(&stack, &secret));
    }
    let stack = stack_after(|| drop(key.unwrap(&wrapped, &KEK_IDENTITY)));
    for secret in [OTHER, MARKER, message_key(&OTHER, &wrapped)] {
        assert!(!holds(&stack, &secret));
    }
}

#[test]
fn authenticating_leaves_no_key_on_the_stack() {
    let key = Dek::from_bytes(&MARKER);
    let mac = key.authenticate(&METADATA_IDENTITY);
    let mut mac_key = [0; LEN];
    Hkdf::<Sha256>::new(None, &MARKER)
        .expand(b"meshhook_secrets/v1/metadata-mac", &mut mac_key)
        .unwrap();
    // HMAC (RFC 2104) holds its key masked by these two, too.
    let mut secrets = [0, 0x36, 0x5c].map(|mask| mac_key.map(|byte| byte ^ mask)).to_vec();
    // … and the hash states after them, which forge MACs as well as the key does.
    secrets.extend([0x36, 0x5c].map(|mask| keyed_state(&mac_key, mask)));
    for stack in [
        stack_after(|| _ = black_box(key.authenticate(&METADATA_IDENTITY))),
        stack_after(|| _ = black_box(key.verify(&METADATA_IDENTITY, &mac))),
    ] {
        assert!(!holds(&stack, &MARKER));
        for secret in &secrets {
            assert!(!holds(&stack, secret));
        }
    }
}

/// SHA-256's state (FIPS 180-4, in memory's byte order) after the masked block of an HMAC key.
fn keyed_state(key: &[u8; LEN], mask: u8) -> [u8; LEN] {
    let mut state = [
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
        0x5be0cd19,
    ];
    let mut block = [mask; 64];
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    compress256(&mut state, &[block]);
    let mut bytes = [0; LEN];
    for (place, word) in bytes.chunks_exact_mut(4).zip(state) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

#[test]
fn fingerprinting_leaves_no_key_on_the_stack() {
    let key = RootKey::from_bytes(&MARKER);
    let (pseudorandom_key, _) = Hkdf::<Sha256>::extract(None, &MARKER);
    let stack = stack_after(|| drop(key.fingerprint()));
    for secret in [MARKER, pseudorandom_key.into()] {
        for mask in [0, 0x36, 0x5c] {
            assert!(!holds(&stack, &secret.map(|byte| byte ^ mask)));
        }
    }
}

#[test]
fn reading_root_keys_leaves_none_on_the_stack() {
    let content = base16ct::lower::encode_string(&MARKER);
    let stack = stack_after(|| drop(root_key::parse(content.as_bytes())));
    assert!(!holds(&stack, &MARKER));
}

/// The AES-256-GCM key that XAES-256-GCM derives for one envelope (C2SP, by the book).
fn message_key(key: &[u8; LEN], envelope: &[u8]) -> [u8; LEN] {
    let aes = Aes256::new(key.into());
    let mut subkey = [0; 16].into();
    aes.encrypt_block(&mut subkey);
    let doubled = u128::from_be_bytes(subkey.into());
    let subkey = ((doubled << 1) ^ ((doubled >> 127) * 0b1000_0111)).to_be_bytes();
    let half = |number: u8| -> [u8; 16] {
        let mut block = [0; 16];
        block[..4].copy_from_slice(&[0, number, b'X', 0]);
        block[4..].copy_from_slice(&envelope[2..14]);
        let mut block = std::array::from_fn(|i| block[i] ^ subkey[i]).into();
        aes.encrypt_block(&mut block);
        block.into()
    };
    let mut derived = [0; LEN];
    derived[..16].copy_from_slice(&half(1));
    derived[16..].copy_from_slice(&half(2));
    derived
}

#[test]
fn the_message_key_is_worked_out_right() {
    let envelope = Dek::from_bytes(&OTHER).seal(b"v", &VALUE_IDENTITY).unwrap();
    let opened = Aes256Gcm::new(&message_key(&OTHER, &envelope).into()).decrypt(
        &Nonce::try_from(&envelope[14..26]).unwrap(),
        Payload { msg: &envelope[26..], aad: &VALUE_IDENTITY.encode() },
    );
    assert_eq!(opened.unwrap(), b"v");
}

/// What `work` leaves below this frame.
#[inline(never)]
fn stack_after(work: impl FnOnce()) -> Vec<u8> {
    const DEPTH: usize = 128 * 1024;
    let mut copy = vec![0; DEPTH];
    clean_stack::<DEPTH>();
    call(work);
    let here = 0_u8;
    let top = black_box(&raw const here).expose_provenance();
    let bottom: *const u8 = black_box(with_exposed_provenance(top - DEPTH));
    // SAFETY: a test's thread has 2 MiB of stack, all of it mapped. What lies below this frame is
    // nothing to Rust but bytes; they are copied in one call, before anything overwrites them.
    unsafe { copy.as_mut_ptr().copy_from(bottom, DEPTH) };
    copy
}

#[inline(never)]
fn call(work: impl FnOnce()) {
    work();
}

#[inline(never)]
fn clean_stack<const DEPTH: usize>() {
    black_box([0_u8; DEPTH]);
}
