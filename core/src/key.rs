//! The kinds of key, and what each of them may do.
//!
//! Keys are wiped on drop, print as `[redacted]`, cannot be cloned, and show their bytes at one
//! point, [`RootKey::expose`] and its likes, for the code that stores them in protected memory.

use crate::{
    envelope,
    error::Error,
    identity::{
        AuditKeyIdentity, DekIdentity, Identity, KekIdentity, MetadataIdentity, ValueIdentity,
    },
    limits::KEY_LEN,
    random,
};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing, zeroize_stack};

/// Bytes of the MAC of a metadata row: HMAC-SHA-256 (RFC 2104, FIPS 198-1), untruncated.
pub const MAC_LEN: usize = 32;

/// Stack that hashing may have used for keys, with a wide margin: measured 2 KiB optimised, 7 KiB
/// not optimised.
const STACK: usize = 16 * 1024;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        // Boxed: moving the key moves a pointer and leaves no copy of the bytes behind.
        pub struct $name(Box<[u8; KEY_LEN]>);

        impl $name {
            /// A new key from the operating system's randomness.
            ///
            /// # Errors
            /// [`Error::Randomness`] if the operating system gives none.
            pub fn generate() -> Result<Self, Error> {
                let mut key = Self(Box::new([0; KEY_LEN]));
                random::fill(key.0.as_mut_slice())?;
                Ok(key)
            }

            /// A key with these bytes, copied. The caller wipes its own copy.
            pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
                let mut key = Self(Box::new([0; KEY_LEN]));
                key.0.copy_from_slice(bytes);
                key
            }

            /// The key's bytes: the one point where they can be seen.
            pub fn expose(&self) -> &[u8; KEY_LEN] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = Error;

            /// What an envelope held, if it has the length of a key.
            fn try_from(content: &[u8]) -> Result<Self, Error> {
                let bytes = content.try_into().map_err(|_| Error::Authentication)?;
                Ok(Self::from_bytes(bytes))
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl ZeroizeOnDrop for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

key! {
    /// A root key: lives outside the database, wraps KEKs.
    RootKey
}
key! {
    /// A key-encryption key: wraps data keys.
    Kek
}
key! {
    /// A data key: seals the values of one project and authenticates its metadata.
    Dek
}

key! {
    /// An audit key: makes the MACs of audit seals. Wrapped by a root key, beside the KEKs, so that
    /// neither the rotation nor the destruction of a KEK touches the seals.
    AuditKey
}

impl RootKey {
    /// The name of this key: the first 8 bytes of HKDF-SHA-256 (RFC 5869) of it under a domain of
    /// its own, as 16 hexadecimal digits. Never the key or a bare hash of it.
    pub fn fingerprint(&self) -> String {
        let id = derive::<8>(&self.0, b"meshhook_secrets/v1/root-key-fingerprint");
        zeroize_stack::<STACK>();
        base16ct::lower::encode_string(id.as_slice())
    }

    /// Wraps `kek`: an envelope of 32 + [`envelope::OVERHEAD`] bytes.
    ///
    /// # Errors
    /// [`Error::Randomness`].
    pub fn wrap(&self, kek: &Kek, identity: &KekIdentity<'_>) -> Result<Vec<u8>, Error> {
        envelope::seal(&self.0, &identity.encode(), kek.0.as_slice())
    }

    /// Unwraps a KEK.
    ///
    /// # Errors
    /// [`Error::Authentication`] unless these bytes were wrapped by this key for this identity; the
    /// envelope's own errors if they are no envelope.
    pub fn unwrap(&self, wrapped: &[u8], identity: &KekIdentity<'_>) -> Result<Kek, Error> {
        Kek::try_from(envelope::open(&self.0, &identity.encode(), wrapped)?.as_slice())
    }
}

impl RootKey {
    /// Wraps an audit key: an envelope of 32 + [`envelope::OVERHEAD`] bytes.
    ///
    /// # Errors
    /// [`Error::Randomness`].
    pub fn wrap_audit_key(
        &self,
        key: &AuditKey,
        identity: &AuditKeyIdentity<'_>,
    ) -> Result<Vec<u8>, Error> {
        envelope::seal(&self.0, &identity.encode(), key.0.as_slice())
    }

    /// Unwraps an audit key.
    ///
    /// # Errors
    /// As [`RootKey::unwrap`].
    pub fn unwrap_audit_key(
        &self,
        wrapped: &[u8],
        identity: &AuditKeyIdentity<'_>,
    ) -> Result<AuditKey, Error> {
        AuditKey::try_from(envelope::open(&self.0, &identity.encode(), wrapped)?.as_slice())
    }
}

impl Kek {
    /// Wraps `dek`: an envelope of 32 + [`envelope::OVERHEAD`] bytes.
    ///
    /// # Errors
    /// [`Error::Randomness`].
    pub fn wrap(&self, dek: &Dek, identity: &DekIdentity) -> Result<Vec<u8>, Error> {
        envelope::seal(&self.0, &identity.encode(), dek.0.as_slice())
    }

    /// Unwraps a data key.
    ///
    /// # Errors
    /// As [`RootKey::unwrap`].
    pub fn unwrap(&self, wrapped: &[u8], identity: &DekIdentity) -> Result<Dek, Error> {
        Dek::try_from(envelope::open(&self.0, &identity.encode(), wrapped)?.as_slice())
    }
}

/// What a wrapped KEK is known by in protected memory: SHA-256 over the identity that it is bound
/// to and the envelope, so that only exactly the bytes that were authenticated find it again.
pub fn wrap_digest(identity: &KekIdentity<'_>, wrapped: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(identity.encode()).chain_update(wrapped).finalize().into()
}

impl Dek {
    /// Seals a value: an envelope of its length + [`envelope::OVERHEAD`] bytes.
    ///
    /// # Errors
    /// [`Error::Randomness`].
    pub fn seal(&self, value: &[u8], identity: &ValueIdentity<'_>) -> Result<Vec<u8>, Error> {
        envelope::seal(&self.0, &identity.encode(), value)
    }

    /// Opens a sealed value.
    ///
    /// # Errors
    /// As [`RootKey::unwrap`].
    pub fn open(
        &self,
        sealed: &[u8],
        identity: &ValueIdentity<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        envelope::open(&self.0, &identity.encode(), sealed)
    }

    /// The MAC of a metadata row.
    pub fn authenticate(&self, metadata: &MetadataIdentity<'_>) -> [u8; MAC_LEN] {
        let mac = compute_mac(&self.0, METADATA_MAC, metadata);
        zeroize_stack::<STACK>();
        mac
    }

    /// Checks the MAC of a metadata row, in constant time.
    ///
    /// # Errors
    /// [`Error::Authentication`] if it is not the MAC of this row by this key.
    pub fn verify(&self, metadata: &MetadataIdentity<'_>, tag: &[u8]) -> Result<(), Error> {
        let verified = verify_mac(&self.0, METADATA_MAC, metadata, tag);
        zeroize_stack::<STACK>();
        verified
    }
}

impl AuditKey {
    /// The MAC of an audit seal or of the head of their chain.
    pub fn authenticate(&self, sealed: &impl Identity) -> [u8; MAC_LEN] {
        let mac = compute_mac(&self.0, AUDIT_MAC, sealed);
        zeroize_stack::<STACK>();
        mac
    }

    /// Checks the MAC of an audit seal or of the head of their chain, in constant time.
    ///
    /// # Errors
    /// [`Error::Authentication`] if it is not its MAC by this key.
    pub fn verify(&self, sealed: &impl Identity, tag: &[u8]) -> Result<(), Error> {
        let verified = verify_mac(&self.0, AUDIT_MAC, sealed, tag);
        zeroize_stack::<STACK>();
        verified
    }
}

/// The domains of the keys that MACs are made with.
const METADATA_MAC: &[u8] = b"meshhook_secrets/v1/metadata-mac";
const AUDIT_MAC: &[u8] = b"meshhook_secrets/v1/audit-mac";

// Frames of their own, so that `zeroize_stack` afterwards covers what they left behind: the keyed
// hash states are as good as the key.

#[inline(never)]
fn compute_mac(key: &[u8; KEY_LEN], domain: &[u8], content: &impl Identity) -> [u8; MAC_LEN] {
    mac(key, domain, content).finalize().into_bytes().into()
}

#[inline(never)]
fn verify_mac(
    key: &[u8; KEY_LEN],
    domain: &[u8],
    content: &impl Identity,
    tag: &[u8],
) -> Result<(), Error> {
    mac(key, domain, content).verify_slice(tag).map_err(|_| Error::Authentication)
}

fn mac(key: &[u8; KEY_LEN], domain: &[u8], content: &impl Identity) -> Hmac<Sha256> {
    let key = derive::<32>(key, domain);
    // A 32-byte array is always a legal HMAC key: `new` takes one block and cannot fail.
    let mut block = Zeroizing::new([0u8; 64]);
    block[..32].copy_from_slice(key.as_slice());
    Hmac::<Sha256>::new((&*block).into()).chain_update(content.encode())
}

#[inline(never)]
fn derive<const N: usize>(key: &[u8; KEY_LEN], domain: &[u8]) -> Zeroizing<[u8; N]> {
    let mut output = Zeroizing::new([0; N]);
    // HKDF-SHA-256 fails only for more than 255 × 32 bytes of output (RFC 5869, section 2.3).
    let expanded = Hkdf::<Sha256>::new(None, key).expand(domain, output.as_mut_slice());
    debug_assert!(expanded.is_ok());
    output
}
