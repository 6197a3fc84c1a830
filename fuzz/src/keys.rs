//! Keys, what they wrap and seal, and what that is bound to.

use super::source::Source;
use meshhook_secrets_core::{
    Error,
    audit::{Head, Seal},
    dek_status::DekStatus,
    envelope::OVERHEAD,
    error::RootKeyError,
    identity::{
        AuditKeyIdentity, DekIdentity, Identity, KekIdentity, MetadataIdentity, ValueIdentity,
    },
    kek_status::KekStatus,
    key::{AuditKey, Dek, Kek, RootKey},
    limits::ROOT_KEYS_MAX,
    root_key,
};

const KEY: [u8; 32] = *b"the key that all fuzzers seal by";
const VALUE: ValueIdentity<'static> = ValueIdentity {
    project_id: [1; 16],
    secret_id: [2; 16],
    name: "API_KEY",
    version: 3,
    dek_version: 5,
    expires_at: None,
};
const WRAP: DekIdentity =
    DekIdentity { project_id: [1; 16], dek_version: 5, kek_id: 7, status: DekStatus::Active };

/// What is no envelope is told apart, what was sealed opens, and nothing opens that was altered since.
pub fn envelopes(data: &[u8]) {
    let dek = Dek::from_bytes(&KEY);
    let expected = match data {
        _ if data.len() < OVERHEAD => Error::EnvelopeTooShort,
        [1, 1, ..] => Error::Authentication,
        [1, other, ..] => Error::UnknownAlgorithm(*other),
        [other, ..] => Error::UnknownFormat(*other),
        [] => Error::EnvelopeTooShort,
    };
    match dek.open(data, &VALUE) {
        // Who holds the key and watches the comparison learns the tag: the fuzzer does both, and has done it.
        Ok(content) if expected == Error::Authentication => {
            assert_eq!(content.len() + OVERHEAD, data.len());
        }
        opened => assert_eq!(opened.map(drop), Err(expected)),
    }

    let mut source = Source(data);
    let (kind, place) = (source.byte(), source.number() as usize);
    let content = source.0;
    let sealed = sealed(&dek, content);
    let opened = dek.open(&sealed, &VALUE);
    assert!(opened.is_ok_and(|opened| *opened == content), "what was sealed opens");

    let mut altered = sealed.clone();
    match kind % 4 {
        0 => altered[place % sealed.len()] ^= 1 << (kind >> 5),
        1 => altered.truncate(place % sealed.len()),
        2 => altered.push(kind),
        _ => altered.insert(place % sealed.len(), kind),
    }
    // A byte that was put in beside its like changes nothing.
    assert!(altered == sealed || dek.open(&altered, &VALUE).is_err(), "altered at {place}");

    // Nothing but 32 bytes is a key, whoever wrapped it.
    let is_long_enough = data.len() == 32 + OVERHEAD;
    assert!(is_long_enough || RootKey::from_bytes(&KEY).unwrap(data, &kek_identity()).is_err());
    assert!(is_long_enough || Kek::from_bytes(&KEY).unwrap(data, &WRAP).is_err());
    assert_eq!(Dek::try_from(content).is_ok(), content.len() == 32);
}

fn kek_identity() -> KekIdentity<'static> {
    KekIdentity { kek_id: 7, root_key_id: "160dd0f4b020b4cb", status: KekStatus::Active }
}

fn sealed(dek: &Dek, content: &[u8]) -> Vec<u8> {
    let Ok(sealed) = dek.seal(content, &VALUE) else { panic!("the system gives no randomness") };
    assert_eq!(sealed.len(), content.len() + OVERHEAD);
    sealed
}

/// A root key source gives the keys that a plain reading of it gives, or an error.
pub fn root_keys(data: &[u8]) {
    let read = root_key::parse(data);
    let expected = read_plainly(data);
    match (&read, &expected) {
        (Ok(keys), Some(expected)) => {
            assert!((1..=ROOT_KEYS_MAX).contains(&keys.len()));
            assert!(keys.iter().map(RootKey::expose).eq(expected.iter()));
        }
        (Err(Error::RootKey(error)), None) => {
            let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
            if let RootKeyError::Malformed { line }
            | RootKeyError::Trivial { line }
            | RootKeyError::Repeated { line } = error
            {
                assert!((1..=lines).contains(line), "line {line} of {lines}");
            }
        }
        _ => {
            panic!("read as {:?}, expected {} keys", read.err(), expected.map_or(0, |it| it.len()))
        }
    }
}

/// The keys, by code that is not careful about time; `None` if anything is wrong.
fn read_plainly(data: &[u8]) -> Option<Vec<[u8; 32]>> {
    let text = std::str::from_utf8(data).ok()?;
    let mut keys = Vec::new();
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).split('\n') {
        let line = line.find('#').map_or(line, |comment| &line[..comment]).trim();
        if line.is_empty() {
            continue;
        }
        let key = hexadecimal(line).or_else(|| base64(line))?;
        if key == [key[0]; 32] || keys.contains(&key) || keys.len() == ROOT_KEYS_MAX {
            return None;
        }
        keys.push(key);
    }
    (!keys.is_empty()).then_some(keys)
}

fn hexadecimal(line: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u32>> = line.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
    bytes.try_into().ok()
}

fn base64(line: &str) -> Option<[u8; 32]> {
    let digits = match line.len() {
        43 => line,
        44 => line.strip_suffix('=')?,
        _ => return None,
    };
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, held) = (bits << 6 | u32::from(value), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    // What is left over of the last digit must be nothing, or a key had several spellings.
    if bits == 0 { bytes.try_into().ok() } else { None }
}

/// The fields of an identity, in their own kind.
#[derive(Debug, PartialEq)]
enum Field {
    Bytes(Vec<u8>),
    Number(i64),
    Time(Option<i64>),
}

/// Two identities encode alike only if they are the same, of whatever kinds they are: the fields can be read
/// back, so nothing but them can have made these bytes.
pub fn identities(data: &[u8]) {
    let mut source = Source(data);
    let (first, second) = (identity(&mut source), identity(&mut source));
    for (encoded, domain, fields) in [&first, &second] {
        assert_eq!(&decode(encoded, domain, fields), fields, "{domain}");
    }
    let same = first.1 == second.1 && first.2 == second.2;
    assert_eq!(first.0 == second.0, same, "{first:?} and {second:?}");

    // What is bound to the one does not verify for the other.
    let key = AuditKey::from_bytes(&KEY);
    let mac = key.authenticate(&Encoded(first.0));
    assert_eq!(key.verify(&Encoded(second.0), &mac).is_ok(), same);
}

struct Encoded(Vec<u8>);

impl Identity for Encoded {
    fn encode(&self) -> Vec<u8> {
        self.0.clone()
    }
}

type Described = (Vec<u8>, &'static str, Vec<Field>);

fn identity(source: &mut Source<'_>) -> Described {
    use Field::{Bytes, Number, Time};
    match source.byte() % 7 {
        0 => {
            let (kek_id, root_key_id) = (source.number(), source.text());
            let status = source.one_of(&KekStatus::ALL);
            let identity = KekIdentity { kek_id, root_key_id: &root_key_id, status };
            let fields = vec![
                Number(kek_id.into()),
                Bytes(root_key_id.clone().into()),
                Bytes(status.as_str().into()),
            ];
            (identity.encode(), "meshhook_secrets/v1/kek", fields)
        }
        1 => {
            let (key_version, root_key_id) = (source.number(), source.text());
            let identity = AuditKeyIdentity { key_version, root_key_id: &root_key_id };
            let fields = vec![Number(key_version.into()), Bytes(root_key_id.clone().into())];
            (identity.encode(), "meshhook_secrets/v1/audit-key", fields)
        }
        2 => {
            let (project_id, dek_version) = (source.array(), source.number());
            let (kek_id, status) = (source.number(), source.one_of(&DekStatus::ALL));
            let identity = DekIdentity { project_id, dek_version, kek_id, status };
            let fields = vec![
                Bytes(project_id.into()),
                Number(dek_version.into()),
                Number(kek_id.into()),
                Bytes(status.as_str().into()),
            ];
            (identity.encode(), "meshhook_secrets/v1/dek", fields)
        }
        3 => {
            let name = source.text();
            let identity = ValueIdentity {
                project_id: source.array(),
                secret_id: source.array(),
                name: &name,
                version: source.number(),
                dek_version: source.number(),
                expires_at: source.perhaps(Source::long),
            };
            let fields = vec![
                Bytes(identity.project_id.into()),
                Bytes(identity.secret_id.into()),
                Bytes(name.clone().into()),
                Number(identity.version.into()),
                Number(identity.dek_version.into()),
                Time(identity.expires_at),
            ];
            (identity.encode(), "meshhook_secrets/v1/value", fields)
        }
        4 => {
            let name = source.text();
            let identity = MetadataIdentity {
                project_id: source.array(),
                secret_id: source.array(),
                name: &name,
                current_version: source.number(),
                oldest_version: source.number(),
                dek_version: source.number(),
                expires_at: source.perhaps(Source::long),
                deleted_at: source.perhaps(Source::long),
                purge_after: source.perhaps(Source::long),
            };
            let fields = vec![
                Bytes(identity.project_id.into()),
                Bytes(identity.secret_id.into()),
                Bytes(name.clone().into()),
                Number(identity.current_version.into()),
                Number(identity.oldest_version.into()),
                Number(identity.dek_version.into()),
                Time(identity.expires_at),
                Time(identity.deleted_at),
                Time(identity.purge_after),
            ];
            (identity.encode(), "meshhook_secrets/v1/metadata", fields)
        }
        5 => {
            let seal = Seal {
                seal_id: source.long(),
                previous_id: source.long(),
                previous_mac: source.array(),
                from_id: source.long(),
                records: source.number(),
                digest: source.array(),
                month: source.long(),
                key_version: source.number(),
                ring: (source.long(), source.long()),
                sealed_at: source.long(),
            };
            let fields = vec![
                Number(seal.seal_id),
                Number(seal.previous_id),
                Bytes(seal.previous_mac.into()),
                Number(seal.from_id),
                Number(seal.records.into()),
                Bytes(seal.digest.into()),
                Number(seal.month),
                Number(seal.key_version.into()),
                Number(seal.ring.0),
                Number(seal.ring.1),
                Number(seal.sealed_at),
            ];
            (seal.encode(), "meshhook_secrets/v1/audit-seal", fields)
        }
        _ => {
            let head = Head {
                seal_id: source.long(),
                seal_mac: source.array(),
                anchor_id: source.long(),
                anchor_mac: source.array(),
                pruned_before: source.perhaps(Source::long),
                pruned_seal: source.long(),
                server_event: source.perhaps(Source::long),
                key_version: source.number(),
            };
            let fields = vec![
                Number(head.seal_id),
                Bytes(head.seal_mac.into()),
                Number(head.anchor_id),
                Bytes(head.anchor_mac.into()),
                Time(head.pruned_before),
                Number(head.pruned_seal),
                Time(head.server_event),
                Number(head.key_version.into()),
            ];
            (head.encode(), "meshhook_secrets/v1/audit-head", fields)
        }
    }
}

/// Reads an encoding back, field by field, as kinds like those in `like`.
fn decode(encoded: &[u8], domain: &str, like: &[Field]) -> Vec<Field> {
    let mut source = Source(encoded);
    let mut next = || {
        let length = source.long() as usize;
        let field = source.bytes(length);
        assert_eq!(field.len(), length, "a field is cut off");
        field
    };
    assert_eq!(next(), domain.as_bytes());
    let whole = |field: &[u8]| i64::from_le_bytes(field.try_into().unwrap_or_default());
    let fields = like
        .iter()
        .map(|kind| match (kind, next()) {
            (Field::Bytes(_), field) => Field::Bytes(field.to_vec()),
            (Field::Time(_), []) => Field::Time(None),
            (Field::Time(_), field) => Field::Time(Some(whole(field))),
            (Field::Number(_), field) => Field::Number(whole(field)),
        })
        .collect();
    assert!(source.is_empty(), "there is more than the fields");
    fields
}

/// Any steps that KEKs take one by one, the legal ones of any list: once compromised or destroyed a KEK never
/// wraps again, and whatever wraps can be unwrapped.
pub fn kek_states(data: &[u8]) {
    let mut keks = [KekStatus::Pending; 4];
    let mut spoilt = [false; 4];
    for step in data {
        let kek = usize::from(step >> 6);
        let next = KekStatus::ALL[usize::from(step & 7)];
        if keks[kek].may_become(next) {
            let was = std::mem::replace(&mut keks[kek], next);
            assert_ne!(was, next, "a step leads somewhere");
            assert_ne!(was, KekStatus::Destroyed);
            assert!(next != KekStatus::Active || was == KekStatus::Pending, "used again");
            assert!(next != KekStatus::Destroyed || was == KekStatus::DestroyScheduled);
        }
        spoilt[kek] |= matches!(keks[kek], KekStatus::Compromised | KekStatus::Destroyed);
        assert!(!(spoilt[kek] && keks[kek].may_wrap()));
        assert!(!keks[kek].may_wrap() || keks[kek].may_unwrap());
        assert_eq!(keks[kek].as_str().parse(), Ok(keks[kek]));
    }
    // A status is known by its name alone.
    if let Ok(text) = std::str::from_utf8(data) {
        let known = text.parse::<KekStatus>();
        assert!(known.is_err() || known.is_ok_and(|status| status.as_str() == text));
        let known = text.parse::<DekStatus>();
        assert!(known.is_err() || known.is_ok_and(|status| status.as_str() == text));
    }
}
