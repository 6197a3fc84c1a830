//! The AES-256-GCM that everything rests on obeys Google's Wycheproof vectors.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit, Payload},
};
use wycheproof::{
    TestResult,
    aead::{TestName, TestSet},
};

#[test]
fn aes_256_gcm_obeys_every_vector() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for vector in &group.tests {
            let cipher = Aes256Gcm::new_from_slice(&vector.key).unwrap();
            let nonce = Nonce::try_from(vector.nonce.as_slice()).unwrap();
            let payload = |msg| Payload { msg, aad: vector.aad.as_slice() };
            let sealed = [vector.ct.as_slice(), vector.tag.as_slice()].concat();
            let encrypted = cipher.encrypt(&nonce, payload(&vector.pt)).unwrap();
            let decrypted = cipher.decrypt(&nonce, payload(&sealed));
            let context = format!("vector {}: {}", vector.tc_id, vector.comment);
            match vector.result {
                TestResult::Valid => {
                    assert_eq!(encrypted, sealed, "{context}");
                    assert_eq!(decrypted.unwrap(), vector.pt.as_slice(), "{context}");
                    valid += 1;
                }
                TestResult::Invalid => {
                    assert_ne!(encrypted, sealed, "{context}");
                    assert!(decrypted.is_err(), "{context}");
                    invalid += 1;
                }
                TestResult::Acceptable => panic!("no vector may be a matter of taste: {context}"),
            }
        }
    }
    assert!(valid > 30, "only {valid} valid vectors ran");
    assert!(invalid > 20, "only {invalid} invalid vectors ran");
    assert!(valid + invalid > 60, "only {} vectors ran", valid + invalid);
    println!("{valid} valid, {invalid} invalid");
}
