//! Getting at keys: root key → KEK → data key. The first KEK, and a project's first data key, are
//! made on first use.

use crate::{
    error::{Error, Result},
    pg::{scan, scan::Sees, server},
    shmem::keyring,
    store::{
        Uuid, data_keys,
        data_keys::StoredDek,
        keks::{self, StoredKek},
    },
};
use meshhook_secrets_core::{
    dek_status::DekStatus,
    identity::{DekIdentity, KekIdentity},
    kek_status::KekStatus,
    key::{Dek, Kek, wrap_digest},
};

/// A data key and its version.
pub struct VersionedDek {
    pub dek_version: i32,
    pub dek: Dek,
}

/// PT503 while the server is sealed.
pub fn require_open() -> Result<()> {
    keyring::require_open()
}

/// The data key of this version, to open what it sealed. PT503 if its project is sealed.
pub fn dek_to_open(project: &Uuid, dek_version: i32) -> Result<Dek> {
    // Sealed secrets are sealed, whatever the tables hold.
    keyring::require_open()?;
    unwrap_dek(project, &visible(|sees| data_keys::find(project, dek_version, sees))?)
}

/// The project's active data key, to seal with; made if the project has none.
pub fn dek_to_seal(project: &Uuid) -> Result<VersionedDek> {
    keyring::require_open()?;
    loop {
        if let Some(found) = active_dek(project)? {
            return Ok(found);
        }
        let (kek_id, kek) = kek_to_wrap()?;
        let dek = Dek::generate()?;
        let dek_version = 1;
        let identity =
            DekIdentity { project_id: *project, dek_version, kek_id, status: DekStatus::Active };
        let wrapped = kek.wrap(&dek, &identity)?;
        // Two writers may come here for the same project: the second waits for the first, and finds
        // that one's key.
        if data_keys::insert_active(project, dek_version, kek_id, &wrapped)? {
            return Ok(VersionedDek { dek_version, dek });
        }
    }
}

/// Wraps all data keys of a project anew with the status that sealing or unsealing gives them.
pub fn set_project_sealed(project: &Uuid, sealed: bool) -> Result<()> {
    keyring::require_open()?;
    server::lock_object(scan::relation_id("data_keys")?, object_of(project));
    let stored = data_keys::of_project(project, Sees::Latest)?;
    let Some(newest) = stored.iter().map(|key| key.dek_version).max() else {
        return Err(Error::new("PT404", "project has no data key")
            .detail("No secret was ever stored in this project.")
            .hint("Check the project id."));
    };
    for key in &stored {
        let status = match (sealed, key.dek_version == newest) {
            (true, _) => DekStatus::Disabled,
            (false, true) => DekStatus::Active,
            (false, false) => DekStatus::Retiring,
        };
        let mut identity = identity(project, key)?;
        let kek = kek_to_unwrap(key.kek_id)?;
        let dek = kek.unwrap(&key.encrypted, &identity)?;
        identity.status = status;
        let wrapped = kek.wrap(&dek, &identity)?;
        data_keys::replace(project, key.dek_version, &wrapped, status.as_str())?;
    }
    Ok(())
}

fn active_dek(project: &Uuid) -> Result<Option<VersionedDek>> {
    let stored = data_keys::of_project(project, Sees::Latest)?;
    let Some(newest) = stored.iter().max_by_key(|key| key.dek_version) else {
        return Ok(None);
    };
    let dek = unwrap_dek(project, newest)?;
    if newest.status != DekStatus::Active.as_str() {
        return Err(Error::corrupted());
    }
    Ok(Some(VersionedDek { dek_version: newest.dek_version, dek }))
}

/// A row of a key that something refers to. The latest state counts: a key that is disabled stops
/// working at once, even for a cursor that is open, and a transaction with a fixed snapshot writes with
/// keys that are younger than it. A key that is in neither state is a sign of tampering.
fn visible<T>(find: impl Fn(Sees) -> Result<Option<T>>) -> Result<T> {
    match find(Sees::Latest)? {
        Some(row) => Ok(row),
        None => find(Sees::Statement)?.ok_or_else(Error::corrupted),
    }
}

fn unwrap_dek(project: &Uuid, stored: &StoredDek) -> Result<Dek> {
    let identity = identity(project, stored)?;
    let dek = kek_to_unwrap(stored.kek_id)?.unwrap(&stored.encrypted, &identity)?;
    // Looked at only now that it is authenticated.
    if identity.status == DekStatus::Disabled {
        return Err(Error::sealed(
            "The project is sealed.",
            "A member of meshhook_secrets_kek_admin opens it with meshhook_secrets.unseal(project_id).",
        ));
    }
    Ok(dek)
}

fn identity(project: &Uuid, stored: &StoredDek) -> Result<DekIdentity> {
    Ok(DekIdentity {
        project_id: *project,
        dek_version: stored.dek_version,
        kek_id: stored.kek_id,
        status: stored.status.parse()?,
    })
}

/// The KEK with this id, to unwrap a data key.
fn kek_to_unwrap(kek_id: i32) -> Result<Kek> {
    let stored = visible(|sees| keks::find(kek_id, sees))?;
    let (status, kek) = unwrap_kek(&stored)?;
    if !status.may_unwrap() {
        return Err(Error::sealed(
            format!("KEK {kek_id} is {}.", status.as_str()),
            "A member of meshhook_secrets_kek_admin decides whether it is enabled again.",
        ));
    }
    Ok(kek)
}

/// The active KEK, to wrap a data key; the first one is made here.
fn kek_to_wrap() -> Result<(i32, Kek)> {
    if let Some(found) = active_kek(&keks::all(Sees::Latest)?)? {
        return Ok(found);
    }
    scan::lock_against_writers("kek_storage")?;
    let stored = keks::all(Sees::Latest)?;
    if let Some(found) = active_kek(&stored)? {
        return Ok(found);
    }
    if !stored.is_empty() {
        return Err(Error::sealed(
            "No KEK is active.",
            "A member of meshhook_secrets_kek_admin enables one or makes a new one.",
        ));
    }
    let kek_id = 1;
    let root_key_id = keyring::root_ids()?.into_iter().next().ok_or_else(no_root_key)?;
    let root = keyring::root(&root_key_id)?.ok_or_else(no_root_key)?;
    let kek = Kek::generate()?;
    let identity = KekIdentity { kek_id, root_key_id: &root_key_id, status: KekStatus::Active };
    keks::insert_active(kek_id, &root.wrap(&kek, &identity)?, &root_key_id)?;
    Ok((kek_id, kek))
}

fn active_kek(stored: &[StoredKek]) -> Result<Option<(i32, Kek)>> {
    let active = stored
        .iter()
        .find(|kek| kek.status.parse().is_ok_and(|status: KekStatus| status.may_wrap()));
    active.map(|stored| Ok((stored.kek_id, unwrap_kek(stored)?.1))).transpose()
}

/// Unwraps a KEK with its root key, or finds it in memory. A KEK in memory is found only by the
/// very row that was authenticated when it was unwrapped, so a changed row is always noticed.
fn unwrap_kek(stored: &StoredKek) -> Result<(KekStatus, Kek)> {
    let status: KekStatus = stored.status.parse()?;
    let Some(encrypted) = &stored.encrypted else {
        return Err(Error::sealed(
            format!("KEK {} is destroyed.", stored.kek_id),
            "What it wrapped cannot be recovered, except from a backup made before.",
        ));
    };
    let identity = KekIdentity { kek_id: stored.kek_id, root_key_id: &stored.root_key_id, status };
    let digest = wrap_digest(&identity, encrypted);
    if let Some(kek) = keyring::kek(&digest)? {
        return Ok((status, kek));
    }
    let Some(root) = keyring::root(&stored.root_key_id)? else {
        return Err(missing_root_key(stored, status, encrypted)?);
    };
    let kek = root.unwrap(encrypted, &identity)?;
    keyring::keep_kek(&digest, &kek, &stored.root_key_id)?;
    Ok((status, kek))
}

/// The KEK names a root key that is not loaded: either that key is missing, or somebody changed the
/// name, which shows when a loaded key fits after all.
fn missing_root_key(stored: &StoredKek, status: KekStatus, encrypted: &[u8]) -> Result<Error> {
    let loaded = keyring::root_ids()?;
    for root_key_id in &loaded {
        let identity = KekIdentity { kek_id: stored.kek_id, root_key_id, status };
        let root = keyring::root(root_key_id)?.ok_or_else(no_root_key)?;
        if root.unwrap(encrypted, &identity).is_ok() {
            return Ok(Error::corrupted());
        }
    }
    let needed: String =
        stored.root_key_id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    Ok(Error::sealed(
        format!(
            "KEK {} of this database needs the root key {needed}; loaded is {}.",
            stored.kek_id,
            loaded.join(", ")
        ),
        format!(
            "Put the root key with fingerprint {needed} into the root key source and reload the server."
        ),
    ))
}

fn no_root_key() -> Error {
    Error::sealed("The root key is not loaded.", "Try again.")
}

/// An object id for the lock of a project. Two projects with the same one merely queue together; all
/// bytes count, since UUIDs made at about the same time begin alike.
fn object_of(project: &Uuid) -> u32 {
    let words = project.as_chunks::<4>().0;
    words.iter().fold(0, |id, word| id ^ u32::from_le_bytes(*word))
}
