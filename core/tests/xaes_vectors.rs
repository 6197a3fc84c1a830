//! XAES-256-GCM obeys every vector that C2SP publishes (<https://c2sp.org/XAES-256-GCM>), and our
//! envelope is that and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use meshhook_secrets_core::{
    envelope::OVERHEAD,
    identity::{Identity, ValueIdentity},
    key::Dek,
};
use sha3::{
    Shake128,
    digest::{ExtendableOutput, Update, XofReader},
};
use xaes_256_gcm::{
    Nonce, Xaes256Gcm,
    aead::{Aead, KeyInit, Payload},
};

#[test]
fn first_vector() {
    fixed(0x01, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271");
}

#[test]
fn second_vector() {
    fixed(
        0x03,
        b"c2sp.org/XAES-256-GCM",
        "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
    );
}

#[test]
fn ten_thousand_accumulated() {
    assert_eq!(
        accumulated(10_000),
        "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
    );
}

#[test]
fn a_million_accumulated() {
    assert_eq!(
        accumulated(1_000_000),
        "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"
    );
}

const ENVELOPE_HEADER: [u8; 2] = [1, 1];
const IDENTITY: ValueIdentity<'static> = ValueIdentity {
    project_id: [0xa1; 16],
    secret_id: [0xb2; 16],
    name: "API_KEY",
    version: 3,
    dek_version: 2,
    expires_at: Some(812_345_678_901_234),
};

#[test]
fn our_envelope_opens_as_bare_xaes() {
    let dek = Dek::from_bytes(&[0x2a; 32]);
    let envelope = dek.seal(b"the value", &IDENTITY).unwrap();
    assert_eq!(envelope.len(), b"the value".len() + OVERHEAD);
    let (header, body) = envelope.split_at(2);
    let (nonce, sealed) = body.split_at(24);
    assert_eq!(header, ENVELOPE_HEADER);
    let opened = Xaes256Gcm::new(dek.expose().into())
        .decrypt(&Nonce::try_from(nonce).unwrap(), Payload { msg: sealed, aad: &IDENTITY.encode() })
        .unwrap();
    assert_eq!(opened, b"the value");
}

#[test]
fn bare_xaes_with_our_header_opens_as_our_envelope() {
    let dek = Dek::from_bytes(&[0x2a; 32]);
    let nonce = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
    let sealed = Xaes256Gcm::new(dek.expose().into())
        .encrypt(&Nonce::from(nonce), Payload { msg: b"the value", aad: &IDENTITY.encode() })
        .unwrap();
    let envelope = [ENVELOPE_HEADER.as_slice(), &nonce, &sealed].concat();
    assert_eq!(dek.open(&envelope, &IDENTITY).unwrap().as_slice(), b"the value");
}

fn fixed(key: u8, aad: &[u8], expected: &str) {
    let cipher = Xaes256Gcm::new(&[key; 32].into());
    let nonce = Nonce::from(*b"ABCDEFGHIJKLMNOPQRSTUVWX");
    let msg = b"XAES-256-GCM".as_slice();
    let sealed = cipher.encrypt(&nonce, Payload { msg, aad }).unwrap();
    assert_eq!(base16ct::lower::encode_string(&sealed), expected);
    let opened = cipher.decrypt(&nonce, Payload { msg: &sealed, aad });
    assert_eq!(opened.unwrap(), msg);
}

/// One SHAKE128 stream without input deals out key, nonce, plaintext and AAD (the last two behind
/// a length byte each); a second SHAKE128 hashes the ciphertexts.
fn accumulated(iterations: usize) -> String {
    let mut dealer = Shake128::default().finalize_xof();
    let mut hash = Shake128::default();
    let mut start = true;
    for _ in 0..iterations {
        let (mut key, mut nonce) = ([0; 32], [0; 24]);
        dealer.read(&mut key);
        if std::mem::take(&mut start) {
            let published = "7f9c2ba4e88f827d616045507605853e";
            assert_eq!(base16ct::lower::encode_string(&key[..16]), published);
        }
        dealer.read(&mut nonce);
        let plaintext = field(&mut dealer);
        let aad = field(&mut dealer);

        let cipher = Xaes256Gcm::new(&key.into());
        let payload = |msg| Payload { msg, aad: &aad };
        let sealed = cipher.encrypt(&nonce.into(), payload(&plaintext)).unwrap();
        let opened = cipher.decrypt(&nonce.into(), payload(&sealed)).unwrap();
        assert_eq!(opened, plaintext);
        hash.update(&sealed);
    }
    let mut digest = [0; 32];
    hash.finalize_xof().read(&mut digest);
    base16ct::lower::encode_string(&digest)
}

fn field(dealer: &mut impl XofReader) -> Vec<u8> {
    let mut length = [0];
    dealer.read(&mut length);
    let mut bytes = vec![0; length[0].into()];
    dealer.read(&mut bytes);
    bytes
}
