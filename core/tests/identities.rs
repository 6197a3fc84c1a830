//! Stored bytes open only where they were stored: every field of an identity counts, and no two
//! identities are alike.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use meshhook_secrets_core::{
    Error,
    dek_status::DekStatus,
    envelope::OVERHEAD,
    identity::{DekIdentity, Identity, KekIdentity, MetadataIdentity, ValueIdentity},
    kek_status::KekStatus,
    key::{Dek, Kek, RootKey},
};
use proptest::prelude::*;
use std::collections::HashSet;
use support::*;

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
