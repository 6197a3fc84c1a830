//! The audit key: root key → audit key. Made at the first use.

use crate::{
    error::{Error, Result},
    pg::scan::{self, Sees},
    service::keys::{missing, no_root_key},
    shmem::keyring,
    store::{
        audit as store,
        audit_keys::{self, StoredAuditKey},
    },
};
use meshhook_secrets_core::{identity::AuditKeyIdentity, key::AuditKey};

/// An audit key and its version.
pub struct Versioned {
    pub key_version: i32,
    pub key: AuditKey,
    /// It was made just now.
    pub is_new: bool,
}

/// The newest audit key, to seal with.
pub fn current() -> Result<Versioned> {
    keyring::require_open()?;
    loop {
        if let Some(stored) =
            audit_keys::all(Sees::Latest)?.into_iter().max_by_key(|key| key.key_version)
        {
            let (key_version, key) = (stored.key_version, unwrap(&stored)?);
            return Ok(Versioned { key_version, key, is_new: false });
        }
        // Where seals remember one that is gone, it stays gone.
        let head = store::head(false)?.map_or(0, |(head, _)| head.key_version);
        let last = store::last_seal()?.map_or(0, |last| last.seal.key_version);
        let key_version = head.max(last).saturating_add(1);
        let key = AuditKey::generate()?;
        let (root_key_id, encrypted) = wrap(key_version, &key)?;
        if audit_keys::insert(key_version, &encrypted, &root_key_id)? {
            return Ok(Versioned { key_version, key, is_new: true });
        }
    }
}

/// The audit key of this version; XX001 if there is none.
pub fn of(key_version: i32) -> Result<AuditKey> {
    let mut keys = audit_keys::all(Sees::Latest)?.into_iter();
    let stored = keys.find(|key| key.key_version == key_version).ok_or_else(Error::corrupted)?;
    unwrap(&stored)
}

/// Whether the statement sees any: then there is a log, too.
pub fn exist() -> Result<bool> {
    Ok(!audit_keys::all(Sees::Statement)?.is_empty())
}

/// Wraps every audit key with the current root key, and checks each.
pub fn rewrap() -> Result<()> {
    // The writer may be making one.
    scan::lock_against_writers("audit_keys")?;
    for stored in audit_keys::all(Sees::Latest)? {
        let key = unwrap(&stored)?;
        let (root_key_id, encrypted) = wrap(stored.key_version, &key)?;
        audit_keys::replace(stored.key_version, &encrypted, &root_key_id)?;
    }
    audit_keys::all(Sees::Latest)?.iter().try_for_each(|stored| unwrap(stored).map(|_| ()))
}

/// Unwraps an audit key with the root key that it names.
pub fn unwrap(stored: &StoredAuditKey) -> Result<AuditKey> {
    let root_key_id = &stored.root_key_id;
    let identity = AuditKeyIdentity { key_version: stored.key_version, root_key_id };
    match keyring::root(root_key_id)? {
        Some(root) => Ok(root.unwrap_audit_key(&stored.encrypted, &identity)?),
        None => Err(missing("The audit key", root_key_id, &keyring::root_ids()?)),
    }
}

fn wrap(key_version: i32, key: &AuditKey) -> Result<(String, Vec<u8>)> {
    let root_key_id = keyring::root_ids()?.into_iter().next().ok_or_else(no_root_key)?;
    let root = keyring::root(&root_key_id)?.ok_or_else(no_root_key)?;
    let identity = AuditKeyIdentity { key_version, root_key_id: &root_key_id };
    let encrypted = root.wrap_audit_key(key, &identity)?;
    Ok((root_key_id, encrypted))
}
