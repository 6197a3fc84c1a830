//! What stored bytes are bound to.
//!
//! Every wrap and seal carries its identity as additional authenticated data (AAD), so that bytes
//! that are swapped, replayed or moved no longer open. The encoding is canonical and injective:
//! the domain, then every field, each as `length (u64, little endian) ‖ bytes`, the way PASETO's
//! pre-authentication encoding does it. Integers are 8 bytes little endian; a missing value is the
//! empty field, which no present value can equal.

use crate::{dek_status::DekStatus, kek_status::KekStatus};

/// A point in time: microseconds since 2000-01-01 00:00 UTC, PostgreSQL's own count.
pub type Timestamp = i64;

/// Something that stored bytes are bound to.
pub trait Identity {
    /// The canonical encoding.
    fn encode(&self) -> Vec<u8>;
}

/// Identity of a KEK wrapped by a root key.
#[derive(Clone, Copy, Debug)]
pub struct KekIdentity<'a> {
    /// `kek_storage.kek_id`.
    pub kek_id: i32,
    /// Fingerprint of the root key that wraps it.
    pub root_key_id: &'a str,
    /// `kek_storage.status`: a KEK that was disabled cannot be enabled by editing the row.
    pub status: KekStatus,
}

/// Identity of an audit key wrapped by a root key.
#[derive(Clone, Copy, Debug)]
pub struct AuditKeyIdentity<'a> {
    /// `audit_keys.key_version`.
    pub key_version: i32,
    /// Fingerprint of the root key that wraps it.
    pub root_key_id: &'a str,
}

/// Identity of a data key wrapped by a KEK.
#[derive(Clone, Copy, Debug)]
pub struct DekIdentity {
    /// The project whose key it is.
    pub project_id: [u8; 16],
    /// `data_keys.dek_version`.
    pub dek_version: i32,
    /// The KEK that wraps it.
    pub kek_id: i32,
    /// `data_keys.status`: a sealed project cannot be unsealed by editing the row.
    pub status: DekStatus,
}

/// Identity of a sealed value.
#[derive(Clone, Copy, Debug)]
pub struct ValueIdentity<'a> {
    /// The project it belongs to.
    pub project_id: [u8; 16],
    /// The secret it is a version of.
    pub secret_id: [u8; 16],
    /// The secret's name.
    pub name: &'a str,
    /// The version.
    pub version: i32,
    /// The data key that seals it.
    pub dek_version: i32,
    /// When this version stops working.
    pub expires_at: Option<Timestamp>,
}

/// What the MAC of a metadata row (`project_secrets`) covers: a pointer set back, a name
/// exchanged, an expiry lifted or a deletion undone is noticed.
#[derive(Clone, Copy, Debug)]
pub struct MetadataIdentity<'a> {
    /// The project it belongs to.
    pub project_id: [u8; 16],
    /// The secret.
    pub secret_id: [u8; 16],
    /// Its name.
    pub name: &'a str,
    /// The version that is read by default.
    pub current_version: i32,
    /// The oldest version that is not destroyed.
    pub oldest_version: i32,
    /// The data key that makes the MAC.
    pub dek_version: i32,
    /// When the current version stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Until when a deletion can be undone.
    pub purge_after: Option<Timestamp>,
}

impl Identity for KekIdentity<'_> {
    fn encode(&self) -> Vec<u8> {
        Encoder::new("meshhook_secrets/v1/kek")
            .integer(self.kek_id)
            .bytes(self.root_key_id.as_bytes())
            .bytes(self.status.as_str().as_bytes())
            .done()
    }
}

impl Identity for AuditKeyIdentity<'_> {
    fn encode(&self) -> Vec<u8> {
        Encoder::new("meshhook_secrets/v1/audit-key")
            .integer(self.key_version)
            .bytes(self.root_key_id.as_bytes())
            .done()
    }
}

impl Identity for DekIdentity {
    fn encode(&self) -> Vec<u8> {
        Encoder::new("meshhook_secrets/v1/dek")
            .bytes(&self.project_id)
            .integer(self.dek_version)
            .integer(self.kek_id)
            .bytes(self.status.as_str().as_bytes())
            .done()
    }
}

impl Identity for ValueIdentity<'_> {
    fn encode(&self) -> Vec<u8> {
        Encoder::new("meshhook_secrets/v1/value")
            .bytes(&self.project_id)
            .bytes(&self.secret_id)
            .bytes(self.name.as_bytes())
            .integer(self.version)
            .integer(self.dek_version)
            .time(self.expires_at)
            .done()
    }
}

impl Identity for MetadataIdentity<'_> {
    fn encode(&self) -> Vec<u8> {
        Encoder::new("meshhook_secrets/v1/metadata")
            .bytes(&self.project_id)
            .bytes(&self.secret_id)
            .bytes(self.name.as_bytes())
            .integer(self.current_version)
            .integer(self.oldest_version)
            .integer(self.dek_version)
            .time(self.expires_at)
            .time(self.deleted_at)
            .time(self.purge_after)
            .done()
    }
}

/// The canonical encoding, field by field.
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn new(domain: &str) -> Self {
        Self(Vec::with_capacity(256)).bytes(domain.as_bytes())
    }

    pub(crate) fn bytes(mut self, field: &[u8]) -> Self {
        self.0.extend_from_slice(&(field.len() as u64).to_le_bytes());
        self.0.extend_from_slice(field);
        self
    }

    pub(crate) fn integer(self, value: i32) -> Self {
        self.long(i64::from(value))
    }

    pub(crate) fn long(self, value: i64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn time(self, value: Option<Timestamp>) -> Self {
        match value {
            Some(value) => self.bytes(&value.to_le_bytes()),
            None => self.bytes(&[]),
        }
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}
