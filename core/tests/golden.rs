//! What is stored today opens for ever: golden bytes of every encoding, wrap, seal and MAC.
//!
//! None of them was made by this code. They come from a Python script over OpenSSL (package
//! `cryptography`), `hmac` and `struct`:
//!
//! - field: `struct.pack("<Q", len(f)) + f`; integer and time: `struct.pack("<q", v)` as a field;
//! - XAES: `AESGCM(CMAC(k, 00 01 58 00 n[:12]) + CMAC(k, 00 02 58 00 n[:12]))` with nonce `n[12:]`,
//!   checked against C2SP's two vectors first;
//! - HKDF: `prk = HMAC(32 zero bytes, key)`, `HMAC(prk, domain + 01)`, cut to length.
//!
//! A test that fails here means that stored secrets no longer open: add a format, never edit these.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use meshhook_secrets_core::{
    dek_status::DekStatus,
    identity::{DekIdentity, Identity, KekIdentity, MetadataIdentity, ValueIdentity},
    kek_status::KekStatus,
    key::{Dek, Kek, RootKey},
};

const ROOT_KEY: [u8; 32] = counting_from(0x00);
const KEK: [u8; 32] = counting_from(0x20);
const DEK: [u8; 32] = counting_from(0x40);
const PROJECT: [u8; 16] = counting_from(0x60);
const SECRET: [u8; 16] = counting_from(0x70);

const FINGERPRINT: &str = "160dd0f4b020b4cb";

const KEK_IDENTITY: KekIdentity<'static> =
    KekIdentity { kek_id: 7, root_key_id: FINGERPRINT, status: KekStatus::Active };
const KEK_ENCODING: &str = concat!(
    "1700000000000000",
    "6d657368686f6f6b5f736563726574732f76312f6b656b", // meshhook_secrets/v1/kek
    "0800000000000000",
    "0700000000000000", // kek_id
    "1000000000000000",
    "31363064643066346230323062346362", // root_key_id
    "0600000000000000",
    "616374697665", // active
);
const WRAPPED_KEK: &str = concat!(
    "0101",
    "919191919191919191919191919191919191919191919191",
    "c3d81ab09c6cdadfe1c28987bffbf291e0c31cda1a666dbc9b7b005e0edda755",
    "27f608fd4e8457266b20fa669b637b73",
);

const DEK_IDENTITY: DekIdentity =
    DekIdentity { project_id: PROJECT, dek_version: 5, kek_id: 7, status: DekStatus::Retiring };
const DEK_ENCODING: &str = concat!(
    "1700000000000000",
    "6d657368686f6f6b5f736563726574732f76312f64656b", // meshhook_secrets/v1/dek
    "1000000000000000",
    "606162636465666768696a6b6c6d6e6f", // project_id
    "0800000000000000",
    "0500000000000000", // dek_version
    "0800000000000000",
    "0700000000000000", // kek_id
    "0800000000000000",
    "7265746972696e67", // retiring
);
const WRAPPED_DEK: &str = concat!(
    "0101",
    "929292929292929292929292929292929292929292929292",
    "ae34bbdd00f746bb104d87623f4ba9059858885b9dfba9e50dc659d7b3cf9bfb",
    "b7aa959bfd5b96f14f21816bec5a162d",
);

const VALUE: &str = "s3cr3t ✓";
const VALUE_IDENTITY: ValueIdentity<'static> = ValueIdentity {
    project_id: PROJECT,
    secret_id: SECRET,
    name: "API_KEY",
    version: 3,
    dek_version: 5,
    expires_at: Some(812_345_678_901_234),
};
const VALUE_ENCODING: &str = concat!(
    "1900000000000000",
    "6d657368686f6f6b5f736563726574732f76312f76616c7565", // meshhook_secrets/v1/value
    "1000000000000000",
    "606162636465666768696a6b6c6d6e6f", // project_id
    "1000000000000000",
    "707172737475767778797a7b7c7d7e7f", // secret_id
    "0700000000000000",
    "4150495f4b4559", // name
    "0800000000000000",
    "0300000000000000", // version
    "0800000000000000",
    "0500000000000000", // dek_version
    "0800000000000000",
    "f22fa0f7d2e20200", // expires_at
);
const SEALED_VALUE: &str = concat!(
    "0101",
    "939393939393939393939393939393939393939393939393",
    "b4ea19027c810e1ce10f",
    "913a0b4d7a52605e24d9125f307d62be",
);

const EMPTY_VALUE_IDENTITY: ValueIdentity<'static> = ValueIdentity {
    name: "_",
    version: i32::MAX,
    dek_version: 1,
    expires_at: None,
    ..VALUE_IDENTITY
};
const EMPTY_VALUE_ENCODING: &str = concat!(
    "1900000000000000",
    "6d657368686f6f6b5f736563726574732f76312f76616c7565", // meshhook_secrets/v1/value
    "1000000000000000",
    "606162636465666768696a6b6c6d6e6f", // project_id
    "1000000000000000",
    "707172737475767778797a7b7c7d7e7f", // secret_id
    "0100000000000000",
    "5f", // name
    "0800000000000000",
    "ffffff7f00000000", // version
    "0800000000000000",
    "0100000000000000", // dek_version
    "0000000000000000", // expires_at: never
);
const SEALED_EMPTY_VALUE: &str = concat!(
    "0101",
    "949494949494949494949494949494949494949494949494",
    "2540ea67360a39c6b81ac4a4b92e29de",
);

const METADATA_IDENTITY: MetadataIdentity<'static> = MetadataIdentity {
    project_id: PROJECT,
    secret_id: SECRET,
    name: "API_KEY",
    current_version: 3,
    oldest_version: 2,
    dek_version: 5,
    expires_at: Some(812_345_678_901_234),
    deleted_at: None,
    purge_after: Some(-1),
};
const METADATA_ENCODING: &str = concat!(
    "1c00000000000000",
    "6d657368686f6f6b5f736563726574732f76312f6d65746164617461", // meshhook_secrets/v1/metadata
    "1000000000000000",
    "606162636465666768696a6b6c6d6e6f", // project_id
    "1000000000000000",
    "707172737475767778797a7b7c7d7e7f", // secret_id
    "0700000000000000",
    "4150495f4b4559", // name
    "0800000000000000",
    "0300000000000000", // current_version
    "0800000000000000",
    "0200000000000000", // oldest_version
    "0800000000000000",
    "0500000000000000", // dek_version
    "0800000000000000",
    "f22fa0f7d2e20200", // expires_at
    "0000000000000000", // deleted_at: never
    "0800000000000000",
    "ffffffffffffffff", // purge_after
);
const METADATA_MAC: &str = "6a39bf541b6417f14a412d60976f433c8c0c75af189c5eb2db78577c0de564fe";

#[test]
fn root_key_fingerprint() {
    assert_eq!(RootKey::from_bytes(&ROOT_KEY).fingerprint(), FINGERPRINT);
}

#[test]
fn encodings() {
    assert_eq!(KEK_IDENTITY.encode(), bytes(KEK_ENCODING));
    assert_eq!(DEK_IDENTITY.encode(), bytes(DEK_ENCODING));
    assert_eq!(VALUE_IDENTITY.encode(), bytes(VALUE_ENCODING));
    assert_eq!(EMPTY_VALUE_IDENTITY.encode(), bytes(EMPTY_VALUE_ENCODING));
    assert_eq!(METADATA_IDENTITY.encode(), bytes(METADATA_ENCODING));
}

#[test]
fn statuses_are_encoded_by_these_names() {
    let kek_names = KekStatus::ALL.map(KekStatus::as_str);
    assert_eq!(
        kek_names,
        [
            "pending",
            "active",
            "retiring",
            "retired",
            "disabled",
            "compromised",
            "destroy_scheduled",
            "destroyed"
        ]
    );
    let dek_names = DekStatus::ALL.map(DekStatus::as_str);
    assert_eq!(dek_names, ["active", "retiring", "disabled"]);
}

#[test]
fn wrapped_kek() {
    let root_key = RootKey::from_bytes(&ROOT_KEY);
    let kek = root_key.unwrap(&bytes(WRAPPED_KEK), &KEK_IDENTITY).unwrap();
    assert_eq!(kek.expose(), &KEK);
}

#[test]
fn wrapped_dek() {
    let kek = Kek::from_bytes(&KEK);
    let dek = kek.unwrap(&bytes(WRAPPED_DEK), &DEK_IDENTITY).unwrap();
    assert_eq!(dek.expose(), &DEK);
}

#[test]
fn sealed_value() {
    let dek = Dek::from_bytes(&DEK);
    let value = dek.open(&bytes(SEALED_VALUE), &VALUE_IDENTITY).unwrap();
    assert_eq!(value.as_slice(), VALUE.as_bytes());
}

#[test]
fn sealed_empty_value() {
    let dek = Dek::from_bytes(&DEK);
    let sealed = bytes(SEALED_EMPTY_VALUE);
    let value = dek.open(&sealed, &EMPTY_VALUE_IDENTITY).unwrap();
    assert_eq!(value.as_slice(), b"");
}

#[test]
fn metadata_mac() {
    let dek = Dek::from_bytes(&DEK);
    let mac = bytes(METADATA_MAC);
    assert_eq!(dek.authenticate(&METADATA_IDENTITY).as_slice(), mac);
    dek.verify(&METADATA_IDENTITY, &mac).unwrap();
}

#[test]
fn the_whole_chain_from_the_root_key_to_the_value() {
    let root_key = RootKey::from_bytes(&ROOT_KEY);
    let kek = root_key.unwrap(&bytes(WRAPPED_KEK), &KEK_IDENTITY).unwrap();
    let dek = kek.unwrap(&bytes(WRAPPED_DEK), &DEK_IDENTITY).unwrap();
    let value = dek.open(&bytes(SEALED_VALUE), &VALUE_IDENTITY).unwrap();
    assert_eq!(value.as_slice(), VALUE.as_bytes());
    dek.verify(&METADATA_IDENTITY, &bytes(METADATA_MAC)).unwrap();
}

fn bytes(hex: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(hex).unwrap()
}

const fn counting_from<const N: usize>(first: u8) -> [u8; N] {
    let mut bytes = [0; N];
    let mut i = 0;
    while i < N {
        bytes[i] = first + i as u8;
        i += 1;
    }
    bytes
}
