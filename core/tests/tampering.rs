//! Stored bytes open only as they were stored, and only by their key.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use meshhook_secrets_core::{
    Error,
    envelope::OVERHEAD,
    identity::Identity,
    key::{Dek, Kek, MAC_LEN, RootKey},
};
use proptest::prelude::*;
use std::collections::HashSet;
use support::*;
use xaes_256_gcm::{
    Nonce, Xaes256Gcm,
    aead::{Aead, KeyInit, Payload},
};

// ---- altered bytes ----

#[test]
fn every_flipped_bit_is_noticed() {
    each_kind(|envelope, open| {
        for place in 0..envelope.len() {
            for bit in 0..8 {
                let mut altered = envelope.to_vec();
                altered[place] ^= 1 << bit;
                let expected = match place {
                    0 => Error::UnknownFormat(altered[0]),
                    1 => Error::UnknownAlgorithm(altered[1]),
                    _ => Error::Authentication,
                };
                assert_eq!(open(&altered), Err(expected), "byte {place} bit {bit}");
            }
        }
    });
}

#[test]
fn every_cut_is_noticed() {
    each_kind(|envelope, open| {
        for length in 0..envelope.len() {
            let expected =
                if length < OVERHEAD { Error::EnvelopeTooShort } else { Error::Authentication };
            assert_eq!(open(&envelope[..length]), Err(expected), "cut to {length}");
        }
        for place in 2..envelope.len() {
            let mut altered = envelope.to_vec();
            altered.remove(place);
            let expected = if altered.len() < OVERHEAD {
                Error::EnvelopeTooShort
            } else {
                Error::Authentication
            };
            assert_eq!(open(&altered), Err(expected), "without {place}");
        }
    });
}

#[test]
fn every_added_byte_is_noticed() {
    each_kind(|envelope, open| {
        for place in 2..=envelope.len() {
            for added in [0, 1, 0xff] {
                let mut altered = envelope.to_vec();
                altered.insert(place, added);
                assert_eq!(open(&altered), Err(Error::Authentication), "at {place}");
            }
        }
    });
}

#[test]
fn every_exchange_of_two_bytes_is_noticed() {
    each_kind(|envelope, open| {
        for a in 2..envelope.len() {
            for b in (a + 1..envelope.len()).step_by(7) {
                let mut altered = envelope.to_vec();
                altered.swap(a, b);
                if altered != envelope {
                    assert_eq!(open(&altered), Err(Error::Authentication), "{a} and {b}");
                }
            }
        }
    });
}

#[test]
fn parts_of_two_envelopes_do_not_make_a_third() {
    let dek = Dek::from_bytes(&KEY);
    let [one, two] = [b"value one", b"value two"].map(|v| dek.seal(v, &VALUE_IDENTITY).unwrap());
    for place in 3..one.len() {
        let mixed = [&one[..place], &two[place..]].concat();
        if mixed != one && mixed != two {
            let opened = dek.open(&mixed, &VALUE_IDENTITY);
            assert_eq!(opened.map(drop), Err(Error::Authentication), "at {place}");
        }
    }
}

#[test]
fn every_other_format_and_algorithm_is_told() {
    each_kind(|envelope, open| {
        for byte in (0..=255).filter(|byte| *byte != 1) {
            let mut altered = envelope.to_vec();
            altered[0] = byte;
            assert_eq!(open(&altered), Err(Error::UnknownFormat(byte)));
            // The algorithm of an unknown format means nothing.
            altered[1] = byte;
            assert_eq!(open(&altered), Err(Error::UnknownFormat(byte)));
            altered[0] = 1;
            assert_eq!(open(&altered), Err(Error::UnknownAlgorithm(byte)));
        }
    });
}

#[test]
fn authentic_content_that_is_no_key_is_no_key() {
    for length in [0, 16, 31, 33, 64] {
        let content = vec![9; length];
        let wrapped = bare_envelope(&content, &KEK_IDENTITY.encode());
        let unwrapped = RootKey::from_bytes(&KEY).unwrap(&wrapped, &KEK_IDENTITY);
        assert_eq!(unwrapped.map(drop), Err(Error::Authentication));
        let wrapped = bare_envelope(&content, &DEK_IDENTITY.encode());
        let unwrapped = Kek::from_bytes(&KEY).unwrap(&wrapped, &DEK_IDENTITY);
        assert_eq!(unwrapped.map(drop), Err(Error::Authentication));
    }
}

// ---- altered keys ----

#[test]
fn another_key_opens_nothing() {
    let refused = Err(Error::Authentication);
    let wrapped = wrapped_kek();
    let unwrapped = RootKey::from_bytes(&OTHER_KEY).unwrap(&wrapped, &KEK_IDENTITY);
    assert_eq!(unwrapped.map(drop), refused);
    let wrapped = wrapped_dek();
    let unwrapped = Kek::from_bytes(&OTHER_KEY).unwrap(&wrapped, &DEK_IDENTITY);
    assert_eq!(unwrapped.map(drop), refused);
    let other = Dek::from_bytes(&OTHER_KEY);
    let opened = other.open(&sealed_value(), &VALUE_IDENTITY);
    assert_eq!(opened.map(drop), refused);
    let mac = Dek::from_bytes(&KEY).authenticate(&METADATA_IDENTITY);
    assert_eq!(other.verify(&METADATA_IDENTITY, &mac), refused);
}

#[test]
fn the_same_bytes_as_another_kind_of_key_open_nothing() {
    let refused = Err(Error::Authentication);
    let (root_key, kek, dek) =
        (RootKey::from_bytes(&KEY), Kek::from_bytes(&KEY), Dek::from_bytes(&KEY));
    for wrapped in [wrapped_dek(), sealed_value()] {
        assert_eq!(root_key.unwrap(&wrapped, &KEK_IDENTITY).map(drop), refused);
    }
    for wrapped in [wrapped_kek(), sealed_value()] {
        assert_eq!(kek.unwrap(&wrapped, &DEK_IDENTITY).map(drop), refused);
    }
    for sealed in [wrapped_kek(), wrapped_dek()] {
        assert_eq!(dek.open(&sealed, &VALUE_IDENTITY).map(drop), refused);
    }
}

#[test]
fn every_altered_mac_is_noticed() {
    let dek = Dek::from_bytes(&KEY);
    let mac = dek.authenticate(&METADATA_IDENTITY);
    assert_eq!(dek.verify(&METADATA_IDENTITY, &mac), Ok(()));
    let refused = Err(Error::Authentication);
    for bit in 0..MAC_LEN * 8 {
        let mut altered = mac;
        altered[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(dek.verify(&METADATA_IDENTITY, &altered), refused);
    }
    for length in 0..MAC_LEN {
        assert_eq!(dek.verify(&METADATA_IDENTITY, &mac[..length]), refused);
    }
    let longer = [mac.as_slice(), &[0]].concat();
    assert_eq!(dek.verify(&METADATA_IDENTITY, &longer), refused);
}

// ---- fresh nonces ----

#[test]
fn the_same_content_never_looks_the_same() {
    let dek = Dek::from_bytes(&KEY);
    let sealed: Vec<Vec<u8>> =
        (0..500).map(|_| dek.seal(b"the value", &VALUE_IDENTITY).unwrap()).collect();
    let nonces: HashSet<&[u8]> = sealed.iter().map(|sealed| &sealed[2..26]).collect();
    let bodies: HashSet<&[u8]> = sealed.iter().map(|sealed| &sealed[26..]).collect();
    assert_eq!((nonces.len(), bodies.len()), (500, 500));
    // Random in every byte, counters and fixed parts would show.
    for place in 2..26 {
        let seen: HashSet<u8> = sealed.iter().map(|sealed| sealed[place]).collect();
        assert!(seen.len() > 150, "byte {place} took {} values", seen.len());
    }
}

// ---- anything at all ----

proptest! {
    #[test]
    fn any_bytes_give_a_clean_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for bytes in [bytes.clone(), [[1, 1].as_slice(), &bytes].concat()] {
            let expected = match bytes.as_slice() {
                short if short.len() < OVERHEAD => Error::EnvelopeTooShort,
                [1, 1, ..] => Error::Authentication,
                [1, algorithm, ..] => Error::UnknownAlgorithm(*algorithm),
                [format, ..] => Error::UnknownFormat(*format),
                [] => unreachable!(),
            };
            let kek = RootKey::from_bytes(&KEY).unwrap(&bytes, &KEK_IDENTITY);
            prop_assert_eq!(kek.map(drop), Err(expected));
            let dek = Kek::from_bytes(&KEY).unwrap(&bytes, &DEK_IDENTITY);
            prop_assert_eq!(dek.map(drop), Err(expected));
            let dek = Dek::from_bytes(&KEY);
            prop_assert_eq!(dek.open(&bytes, &VALUE_IDENTITY).map(drop), Err(expected));
            prop_assert_eq!(dek.verify(&METADATA_IDENTITY, &bytes), Err(Error::Authentication));
        }
    }
}

type Open<'a> = &'a dyn Fn(&[u8]) -> Result<(), Error>;

/// Runs `check` for a wrapped KEK, a wrapped data key and a sealed value, each of which opens.
fn each_kind(check: impl Fn(&[u8], Open<'_>)) {
    let (root_key, kek, dek) =
        (RootKey::from_bytes(&KEY), Kek::from_bytes(&KEY), Dek::from_bytes(&KEY));
    let kinds: [(Vec<u8>, Open<'_>); 4] = [
        (wrapped_kek(), &|bytes| root_key.unwrap(bytes, &KEK_IDENTITY).map(drop)),
        (wrapped_dek(), &|bytes| kek.unwrap(bytes, &DEK_IDENTITY).map(drop)),
        (sealed_value(), &|bytes| dek.open(bytes, &VALUE_IDENTITY).map(drop)),
        (dek.seal(b"", &VALUE_IDENTITY).unwrap(), &|bytes| {
            dek.open(bytes, &VALUE_IDENTITY).map(drop)
        }),
    ];
    for (envelope, open) in kinds {
        assert_eq!(open(&envelope), Ok(()));
        check(&envelope, open);
    }
}

fn bare_envelope(content: &[u8], aad: &[u8]) -> Vec<u8> {
    let nonce = [7; 24];
    let sealed = Xaes256Gcm::new(&KEY.into())
        .encrypt(&Nonce::from(nonce), Payload { msg: content, aad })
        .unwrap();
    [[1, 1].as_slice(), &nonce, &sealed].concat()
}
