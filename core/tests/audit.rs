//! Audit records and seals: what is sealed today verifies for ever, every field counts, and no bytes at all
//! make the decoder panic.
//!
//! The golden values come from a Python script over `struct`, `hashlib` and `hmac`: a record as the
//! documentation of `Record::encode` says; `sha256(<q id> + <Q length> + record)`; seal and head as fields
//! (see golden.rs) under `HMAC(HKDF(audit key, "meshhook_secrets/v1/audit-mac"))`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use meshhook_secrets_core::{
    audit::{Head, Outcome, RECORD_MAX, Record, RecordsDigest, Seal},
    identity::{AuditKeyIdentity, Identity},
    key::{AuditKey, RootKey},
};
use proptest::prelude::*;
use std::collections::HashSet;

const RECORD: &str = "010bf5e318e00303000a007365637265745f67657402006f6b0001606162636465666768696a6b6c6d6e6f01707172737475767778797a7b7c7d7e7f0107004150495f4b455901030000000001030072756e000d0061757468656e74696361746f72010d0061757468656e74696361746564010500616c696365010d0061757468656e746963617465640109003139322e302e322e370104007073716c0105007265712d3101f10200000000000001000000";
const DIGEST: &str = "af61e573622a3a6f591311f773c88409101b889474bfbafc728d960bb70b2f24";
const SEAL_MAC: &str = "e9f809f56734a2f1c6dcef2e8a001c7e4a6845f80cf32a687342096c434be707";
const HEAD_MAC: &str = "717cb4a15240e09c2775c16356e5ce39acacf3ce98d47d2e9f523debf233736a";

fn key() -> AuditKey {
    AuditKey::from_bytes(&std::array::from_fn(|at| 0x20 + at as u8))
}

fn record() -> Record {
    let ids = |first: u8| Some(std::array::from_fn(|at| first + at as u8));
    let text = |text: &str| Some(text.to_owned());
    Record {
        project_id: ids(0x60),
        secret_id: ids(0x70),
        name: text("API_KEY"),
        version: Some(3),
        purpose: text("run"),
        actor_role: text("authenticated"),
        claimed_sub: text("alice"),
        claimed_role: text("authenticated"),
        client_address: text("192.0.2.7"),
        application_name: text("psql"),
        request_id: text("req-1"),
        transaction_id: Some(753),
        ..Record::new(848_685_955_282_187, "secret_get", Outcome::Ok, "authenticator")
    }
}

fn seal() -> Seal {
    let mut digest = RecordsDigest::default();
    digest.add(848_685_955_282_190, &record());
    Seal {
        seal_id: 848_685_955_282_190,
        previous_id: 848_685_955_282_187,
        previous_mac: std::array::from_fn(|at| at as u8),
        from_id: 848_685_955_282_190,
        records: 1,
        digest: digest.finish(),
        month: 846_633_600_000_000,
        key_version: 2,
        ring: (-5, 77),
        sealed_at: 848_685_955_282_191,
    }
}

fn head() -> Head {
    Head {
        seal_id: 848_685_955_282_190,
        seal_mac: key().authenticate(&seal()),
        server_event: Some(848_685_955_282_180),
        key_version: 2,
        ..Head::default()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_bytes_of_a_record_a_seal_and_a_head() {
    assert_eq!(hex(&record().encode()), RECORD);
    assert_eq!(hex(&seal().digest), DIGEST);
    assert_eq!(hex(&key().authenticate(&seal())), SEAL_MAC);
    assert_eq!(hex(&key().authenticate(&head())), HEAD_MAC);
}

#[test]
fn every_field_of_a_seal_and_of_the_head_counts() {
    let mac = key().authenticate(&seal());
    assert!(key().verify(&seal(), &mac).is_ok());
    let changes: [fn(&mut Seal); 11] = [
        |seal| seal.seal_id += 1,
        |seal| seal.previous_id += 1,
        |seal| seal.previous_mac[31] ^= 1,
        |seal| seal.from_id -= 1,
        |seal| seal.records += 1,
        |seal| seal.digest[0] ^= 1,
        |seal| seal.month += 1,
        |seal| seal.key_version += 1,
        |seal| seal.ring.0 += 1,
        |seal| seal.ring.1 += 1,
        |seal| seal.sealed_at += 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut other = seal();
        change(&mut other);
        assert!(key().verify(&other, &mac).is_err(), "field {at}");
    }
    let mac = key().authenticate(&head());
    let changes: [fn(&mut Head); 8] = [
        |head| head.seal_id += 1,
        |head| head.seal_mac[0] ^= 1,
        |head| head.anchor_id += 1,
        |head| head.anchor_mac[0] ^= 1,
        |head| head.pruned_before = Some(0),
        |head| head.pruned_seal += 1,
        |head| head.server_event = None,
        |head| head.key_version += 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut other = head();
        change(&mut other);
        assert!(key().verify(&other, &mac).is_err(), "field {at}");
    }
    // Neither stands for the other, nor does a MAC that is cut.
    assert!(key().verify(&seal(), &mac).is_err());
    assert!(key().verify(&head(), &mac[..31]).is_err());
}

#[test]
fn a_digest_knows_the_order_and_the_ids() {
    let of = |records: &[(i64, Record)]| {
        let mut digest = RecordsDigest::default();
        records.iter().for_each(|(id, record)| digest.add(*id, record));
        digest.finish()
    };
    let other = Record { times: 2, ..record() };
    let digests = HashSet::from([
        of(&[]),
        of(&[(1, record())]),
        of(&[(2, record())]),
        of(&[(1, record()), (2, other.clone())]),
        of(&[(1, other.clone()), (2, record())]),
        of(&[(2, other), (1, record())]),
    ]);
    assert_eq!(digests.len(), 6);
}

#[test]
fn an_audit_key_unwraps_only_where_it_was_wrapped() {
    let root = RootKey::from_bytes(&[7; 32]);
    let identity = AuditKeyIdentity { key_version: 3, root_key_id: "160dd0f4b020b4cb" };
    let wrapped = root.wrap_audit_key(&key(), &identity).unwrap();
    assert_eq!(root.unwrap_audit_key(&wrapped, &identity).unwrap().expose(), key().expose());
    for other in [
        AuditKeyIdentity { key_version: 4, ..identity },
        AuditKeyIdentity { root_key_id: "160dd0f4b020b4cc", ..identity },
    ] {
        assert!(root.unwrap_audit_key(&wrapped, &other).is_err(), "{other:?}");
        assert_ne!(other.encode(), identity.encode());
    }
    assert!(RootKey::from_bytes(&[8; 32]).unwrap_audit_key(&wrapped, &identity).is_err());
    assert_eq!(format!("{:?}", key()), "AuditKey([redacted])");
}

#[test]
fn outcomes_follow_the_sqlstate() {
    for (sqlstate, outcome) in [
        ("42501", Outcome::Denied),
        ("PT404", Outcome::NotFound),
        ("PT410", Outcome::NotFound),
        ("PT503", Outcome::Error),
        ("XX001", Outcome::Error),
    ] {
        assert_eq!(Outcome::of_sqlstate(sqlstate), outcome, "{sqlstate}");
    }
    for outcome in Outcome::ALL {
        assert_eq!(Outcome::parse(outcome.as_str()), Some(outcome));
    }
}

fn text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("\\PC{0,500}")
}

prop_compose! {
    fn any_record()(
        numbers in any::<(i64, Option<i32>, Option<i32>, Option<i64>, i32)>(),
        outcome in prop::sample::select(Outcome::ALL.to_vec()),
        ids in any::<(Option<[u8; 16]>, Option<[u8; 16]>)>(),
        texts in prop::collection::vec(text(), 10),
        action in "\\PC{0,100}",
        actor in "\\PC{0,100}",
    ) -> Record {
        let text = |at: usize| texts[at].clone();
        Record {
            sqlstate: text(0), project_id: ids.0, secret_id: ids.1, name: text(1),
            version: numbers.1, kek_id: numbers.2, purpose: text(2), detail: text(3),
            actor_role: text(4), claimed_sub: text(5), claimed_role: text(6),
            client_address: text(7), application_name: text(8), request_id: text(9),
            transaction_id: numbers.3, times: numbers.4,
            ..Record::new(numbers.0, &action, outcome, &actor)
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(record in any_record()) {
        prop_assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    }

    #[test]
    fn what_fits_has_room(record in any_record()) {
        let fitted = record.fit();
        prop_assert!(fitted.encode().len() <= RECORD_MAX);
        prop_assert_eq!(fitted.clone().fit(), fitted);
    }

    /// Nothing decodes but what was encoded, byte for byte.
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes);
        }
    }

    #[test]
    fn altered_encodings_are_other_records_or_none(
        record in any_record(), place in any::<prop::sample::Index>(), bit in 0..8,
    ) {
        let mut bytes = record.encode();
        let place = place.index(bytes.len());
        bytes[place] ^= 1_u8 << bit;
        if let Ok(other) = Record::decode(&bytes) {
            prop_assert_ne!(other, record);
        }
    }
}
