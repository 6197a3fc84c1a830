//! One key, one content and one identity of each kind, for the tests that alter them.
#![allow(dead_code)]

pub mod secrets;

use meshhook_secrets_core::{
    dek_status::DekStatus,
    identity::{DekIdentity, KekIdentity, MetadataIdentity, ValueIdentity},
    kek_status::KekStatus,
    key::{Dek, Kek, RootKey},
};

pub const KEY: [u8; 32] = [0x5a; 32];
pub const OTHER_KEY: [u8; 32] = {
    let mut key = KEY;
    key[31] ^= 1;
    key
};
pub const CONTENT: [u8; 32] = *b"thirty-two bytes of a data key..";

pub const KEK_IDENTITY: KekIdentity<'static> =
    KekIdentity { kek_id: 7, root_key_id: "160dd0f4b020b4cb", status: KekStatus::Active };
pub const DEK_IDENTITY: DekIdentity =
    DekIdentity { project_id: [1; 16], dek_version: 5, kek_id: 7, status: DekStatus::Active };
pub const VALUE_IDENTITY: ValueIdentity<'static> = ValueIdentity {
    project_id: [1; 16],
    secret_id: [2; 16],
    name: "API_KEY",
    version: 3,
    dek_version: 5,
    expires_at: Some(1_000_000),
};
pub const METADATA_IDENTITY: MetadataIdentity<'static> = MetadataIdentity {
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

pub fn wrapped_kek() -> Vec<u8> {
    let kek = Kek::from_bytes(&CONTENT);
    RootKey::from_bytes(&KEY).wrap(&kek, &KEK_IDENTITY).unwrap()
}

pub fn wrapped_dek() -> Vec<u8> {
    let dek = Dek::from_bytes(&CONTENT);
    Kek::from_bytes(&KEY).wrap(&dek, &DEK_IDENTITY).unwrap()
}

pub fn sealed_value() -> Vec<u8> {
    Dek::from_bytes(&KEY).seal(&CONTENT, &VALUE_IDENTITY).unwrap()
}
