//! Stored bytes open only as they were stored, only where they were stored, only by their key.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use meshhook_secrets_core::{
    Error,
    dek_status::DekStatus,
    envelope::OVERHEAD,
    identity::{DekIdentity, Identity, KekIdentity, MetadataIdentity, ValueIdentity},
    kek_status::KekStatus,
    key::{Dek, Kek, MAC_LEN, RootKey},
};
use proptest::prelude::*;
use std::collections::HashSet;
use xaes_256_gcm::{
    Nonce, Xaes256Gcm,
    aead::{Aead, KeyInit, Payload},
};

const KEY: [u8; 32] = [0x5a; 32];
const OTHER_KEY: [u8; 32] = {
    let mut key = KEY;
    key[31] ^= 1;
    key
};
const CONTENT: [u8; 32] = *b"thirty-two bytes of a data key..";

const KEK_IDENTITY: KekIdentity<'static> =
    KekIdentity { kek_id: 7, root_key_id: "160dd0f4b020b4cb", status: KekStatus::Active };
const DEK_IDENTITY: DekIdentity =
    DekIdentity { project_id: [1; 16], dek_version: 5, kek_id: 7, status: DekStatus::Active };
const VALUE_IDENTITY: ValueIdentity<'static> = ValueIdentity {
    project_id: [1; 16],
    secret_id: [2; 16],
    name: "API_KEY",
    version: 3,
    dek_version: 5,
    expires_at: Some(1_000_000),
};
const METADATA_IDENTITY: MetadataIdentity<'static> = MetadataIdentity {
    project_id: [1; 16],
    secret_id: [2; 16],
    name: "API_KEY",
    current_version: 3,
    oldest_version: 1,
    dek_version: 5,
    expires_at: Some(1_000_000),
    deleted_at: Some(2_000_000),
    purge_after: Some(3_000_000),
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

// ---- altered identities ----

#[test]
fn a_kek_of_any_other_identity_does_not_unwrap() {
    let root_key = RootKey::from_bytes(&KEY);
    let wrapped = wrapped_kek();
    // Whoever adds a field has to alter it here, too.
    let KekIdentity { kek_id, root_key_id: _, status } = KEK_IDENTITY;
    let mut others = vec![];
    for kek_id in other_integers(kek_id) {
        others.push(KekIdentity { kek_id, ..KEK_IDENTITY });
    }
    for root_key_id in ["160dd0f4b020b4cc", "160DD0F4B020B4CB", "160dd0f4b020b4c", ""] {
        others.push(KekIdentity { root_key_id, ..KEK_IDENTITY });
    }
    for status in KekStatus::ALL.into_iter().filter(|other| *other != status) {
        others.push(KekIdentity { status, ..KEK_IDENTITY });
    }
    for other in others {
        let unwrapped = root_key.unwrap(&wrapped, &other);
        assert_eq!(unwrapped.map(drop), Err(Error::Authentication), "{other:?}");
    }
}

#[test]
fn a_data_key_of_any_other_identity_does_not_unwrap() {
    let kek = Kek::from_bytes(&KEY);
    let wrapped = wrapped_dek();
    let DekIdentity { project_id, dek_version, kek_id, status } = DEK_IDENTITY;
    let mut others = vec![];
    for project_id in other_ids(project_id) {
        others.push(DekIdentity { project_id, ..DEK_IDENTITY });
    }
    for dek_version in other_integers(dek_version) {
        others.push(DekIdentity { dek_version, ..DEK_IDENTITY });
    }
    for kek_id in other_integers(kek_id) {
        others.push(DekIdentity { kek_id, ..DEK_IDENTITY });
    }
    for status in DekStatus::ALL.into_iter().filter(|other| *other != status) {
        others.push(DekIdentity { status, ..DEK_IDENTITY });
    }
    // Two fields exchanged.
    others.push(DekIdentity { dek_version: kek_id, kek_id: dek_version, ..DEK_IDENTITY });
    for other in others {
        let unwrapped = kek.unwrap(&wrapped, &other);
        assert_eq!(unwrapped.map(drop), Err(Error::Authentication), "{other:?}");
    }
}

#[test]
fn a_value_of_any_other_identity_does_not_open() {
    let dek = Dek::from_bytes(&KEY);
    let sealed = sealed_value();
    let ValueIdentity { project_id, secret_id, name: _, version, dek_version, expires_at } =
        VALUE_IDENTITY;
    let mut others = vec![];
    for project_id in other_ids(project_id) {
        others.push(ValueIdentity { project_id, ..VALUE_IDENTITY });
    }
    for secret_id in other_ids(secret_id) {
        others.push(ValueIdentity { secret_id, ..VALUE_IDENTITY });
    }
    for name in OTHER_NAMES {
        others.push(ValueIdentity { name, ..VALUE_IDENTITY });
    }
    for version in other_integers(version) {
        others.push(ValueIdentity { version, ..VALUE_IDENTITY });
    }
    for dek_version in other_integers(dek_version) {
        others.push(ValueIdentity { dek_version, ..VALUE_IDENTITY });
    }
    for expires_at in other_times(expires_at) {
        others.push(ValueIdentity { expires_at, ..VALUE_IDENTITY });
    }
    // Two fields exchanged.
    others.push(ValueIdentity { project_id: secret_id, secret_id: project_id, ..VALUE_IDENTITY });
    others.push(ValueIdentity { version: dek_version, dek_version: version, ..VALUE_IDENTITY });
    for other in others {
        let opened = dek.open(&sealed, &other);
        assert_eq!(opened.map(drop), Err(Error::Authentication), "{other:?}");
    }
}

#[test]
fn metadata_of_any_other_identity_does_not_verify() {
    let dek = Dek::from_bytes(&KEY);
    let mac = dek.authenticate(&METADATA_IDENTITY);
    let MetadataIdentity {
        project_id,
        secret_id,
        name: _,
        current_version,
        oldest_version,
        dek_version,
        expires_at,
        deleted_at,
        purge_after,
    } = METADATA_IDENTITY;
    let same = METADATA_IDENTITY;
    let mut others = vec![];
    for project_id in other_ids(project_id) {
        others.push(MetadataIdentity { project_id, ..same });
    }
    for secret_id in other_ids(secret_id) {
        others.push(MetadataIdentity { secret_id, ..same });
    }
    for name in OTHER_NAMES {
        others.push(MetadataIdentity { name, ..same });
    }
    for current_version in other_integers(current_version) {
        others.push(MetadataIdentity { current_version, ..same });
    }
    for oldest_version in other_integers(oldest_version) {
        others.push(MetadataIdentity { oldest_version, ..same });
    }
    for dek_version in other_integers(dek_version) {
        others.push(MetadataIdentity { dek_version, ..same });
    }
    for expires_at in other_times(expires_at) {
        others.push(MetadataIdentity { expires_at, ..same });
    }
    for deleted_at in other_times(deleted_at) {
        others.push(MetadataIdentity { deleted_at, ..same });
    }
    for purge_after in other_times(purge_after) {
        others.push(MetadataIdentity { purge_after, ..same });
    }
    // Fields exchanged, and a time moved to a neighbour that is missing.
    others.push(MetadataIdentity {
        current_version: oldest_version,
        oldest_version: current_version,
        ..same
    });
    others.push(MetadataIdentity { expires_at: deleted_at, deleted_at: expires_at, ..same });
    others.push(MetadataIdentity { expires_at: None, deleted_at: expires_at, ..same });
    for other in &others {
        let verified = dek.verify(other, &mac);
        assert_eq!(verified, Err(Error::Authentication), "{other:?}");
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
    fn any_content_goes_round(
        content in prop::collection::vec(any::<u8>(), 0..300),
        key: [u8; 32],
        fields in value_fields(),
    ) {
        let (dek, identity) = (Dek::from_bytes(&key), value(&fields));
        let sealed = dek.seal(&content, &identity).unwrap();
        prop_assert_eq!(sealed.len(), content.len() + OVERHEAD);
        prop_assert_eq!(&sealed[..2], &[1, 1]);
        let opened = dek.open(&sealed, &identity).unwrap();
        prop_assert_eq!(opened.as_slice(), content.as_slice());
    }

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

    #[test]
    fn a_value_opens_under_its_own_identity_alone(a in value_fields(), b in value_fields()) {
        let dek = Dek::from_bytes(&KEY);
        let sealed = dek.seal(b"v", &value(&a)).unwrap();
        prop_assert_eq!(dek.open(&sealed, &value(&b)).is_ok(), a == b);
    }

    /// A decoder that gives every field back is the proof that no two identities encode alike.
    #[test]
    fn encodings_are_injective(
        (project, secret, name, version, dek_version, time) in value_fields(),
        other_times in (time(), time()),
        id: i32,
        kek_status in prop::sample::select(KekStatus::ALL.as_slice()),
        dek_status in prop::sample::select(DekStatus::ALL.as_slice()),
    ) {
        let identity = KekIdentity { kek_id: id, root_key_id: &name, status: kek_status };
        prop_assert_eq!(decode(&identity.encode()), vec![
            b"meshhook_secrets/v1/kek".to_vec(), integer(id), name.clone().into(),
            kek_status.as_str().into(),
        ]);
        let identity = DekIdentity { project_id: project, dek_version, kek_id: id, status: dek_status };
        prop_assert_eq!(decode(&identity.encode()), vec![
            b"meshhook_secrets/v1/dek".to_vec(), project.into(), integer(dek_version), integer(id),
            dek_status.as_str().into(),
        ]);
        let identity = value(&(project, secret, name.clone(), version, dek_version, time)).encode();
        prop_assert_eq!(decode(&identity), vec![
            b"meshhook_secrets/v1/value".to_vec(), project.into(), secret.into(),
            name.clone().into(), integer(version), integer(dek_version), optional(time),
        ]);
        let identity = MetadataIdentity {
            project_id: project,
            secret_id: secret,
            name: &name,
            current_version: version,
            oldest_version: id,
            dek_version,
            expires_at: time,
            deleted_at: other_times.0,
            purge_after: other_times.1,
        };
        prop_assert_eq!(decode(&identity.encode()), vec![
            b"meshhook_secrets/v1/metadata".to_vec(), project.into(), secret.into(),
            name.into(), integer(version), integer(id), integer(dek_version),
            optional(time), optional(other_times.0), optional(other_times.1),
        ]);
    }
}

#[test]
fn a_field_cannot_bleed_into_the_next() {
    // The name that spells what follows it in another value's encoding.
    let plain = ValueIdentity { name: "A", ..VALUE_IDENTITY };
    let tail: Vec<u8> = [&8_u64.to_le_bytes()[..], &3_i64.to_le_bytes()].concat();
    let spelled = format!("A{}", String::from_utf8(tail).unwrap());
    let crafted = ValueIdentity { name: &spelled, ..VALUE_IDENTITY };
    assert_ne!(plain.encode(), crafted.encode());
    // A missing time is not the time zero, and does not take its neighbour's place.
    let times = [None, Some(0), Some(i64::MIN), Some(i64::MAX)];
    let mut encodings = HashSet::new();
    for expires_at in times {
        for deleted_at in times {
            for purge_after in times {
                let identity =
                    MetadataIdentity { expires_at, deleted_at, purge_after, ..METADATA_IDENTITY };
                assert!(encodings.insert(identity.encode()));
            }
        }
    }
}

type ValueFields = ([u8; 16], [u8; 16], String, i32, i32, Option<i64>);

/// Few of each, so that identities are often alike in all fields but one, or in all.
fn value_fields() -> impl Strategy<Value = ValueFields> {
    let id = || prop::sample::select(vec![[0; 16], [1; 16], *b"meshhook_secrets"]);
    let number = || prop_oneof![Just(0), Just(1), Just(-1), any::<i32>()];
    let name = prop_oneof!["[ab]{0,2}", "[\u{0}\u{1}\u{8}]{0,24}", "[A-Za-z_][A-Za-z0-9_.-]{0,40}"];
    (id(), id(), name, number(), number(), time())
}

fn time() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![Just(None), Just(Some(0)), any::<i64>().prop_map(Some)]
}

fn value(
    (project, secret, name, version, dek_version, expires_at): &ValueFields,
) -> ValueIdentity<'_> {
    ValueIdentity {
        project_id: *project,
        secret_id: *secret,
        name,
        version: *version,
        dek_version: *dek_version,
        expires_at: *expires_at,
    }
}

fn decode(mut encoding: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = vec![];
    while let Some((length, rest)) = encoding.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        let (field, rest) = rest.split_at(length);
        fields.push(field.to_vec());
        encoding = rest;
    }
    assert!(encoding.is_empty());
    fields
}

fn integer(value: i32) -> Vec<u8> {
    i64::from(value).to_le_bytes().into()
}

fn optional(value: Option<i64>) -> Vec<u8> {
    value.map_or(vec![], |value| value.to_le_bytes().into())
}

const OTHER_NAMES: [&str; 6] = ["API_KEY2", "API_KE", "api_key", "", "API_KEY\0", "OTHER"];

fn other_integers(value: i32) -> Vec<i32> {
    vec![value + 1, value - 1, -value, 0, value + 256, value | 1 << 30, i32::MIN]
}

fn other_ids(id: [u8; 16]) -> Vec<[u8; 16]> {
    (0..16)
        .map(|place| {
            let mut other = id;
            other[place] ^= 0x80;
            other
        })
        .collect()
}

fn other_times(time: Option<i64>) -> Vec<Option<i64>> {
    let time = time.unwrap();
    vec![None, Some(time + 1), Some(time - 1), Some(-time), Some(0), Some(i64::MAX)]
}

fn wrapped_kek() -> Vec<u8> {
    let kek = Kek::from_bytes(&CONTENT);
    RootKey::from_bytes(&KEY).wrap(&kek, &KEK_IDENTITY).unwrap()
}

fn wrapped_dek() -> Vec<u8> {
    let dek = Dek::from_bytes(&CONTENT);
    Kek::from_bytes(&KEY).wrap(&dek, &DEK_IDENTITY).unwrap()
}

fn sealed_value() -> Vec<u8> {
    Dek::from_bytes(&KEY).seal(&CONTENT, &VALUE_IDENTITY).unwrap()
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
