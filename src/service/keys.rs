//! Getting at keys: root key → KEK → data key. The first KEK, and a project's first data key, are
//! made on first use.

use crate::{
    error::{Error, Refusal, Result},
    pg::{scan, scan::Sees},
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
        if let Some(found) = held_active_dek(project)? {
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

/// Why nothing of a project can be opened or sealed now, if so: the refusal (PT503) that its callers
/// meet.
pub fn why_sealed(project: &Uuid) -> Result<Option<Box<Refusal>>> {
    let usable = keyring::require_open().and_then(|()| match active_dek(project)? {
        Some(_) => Ok(()),
        // Its first secret will need an active KEK, unless it is the very first of all.
        None => match active_kek()? {
            Some(active) => unwrap_kek(&active).map(|_| ()),
            None if keks::all(Sees::Latest)?.is_empty() => Ok(()),
            None => Err(no_active_kek()),
        },
    });
    match usable {
        Ok(()) => Ok(None),
        Err(Error::Refused(refusal)) if refusal.state == "PT503" => Ok(Some(refusal)),
        Err(error) => Err(error),
    }
}

/// Wraps all data keys of a project anew with the status that sealing or unsealing gives them.
pub fn set_project_sealed(project: &Uuid, sealed: bool) -> Result<()> {
    keyring::require_open()?;
    let stored = locked(project)?;
    let newest = stored.iter().map(|key| key.dek_version).max();
    for key in &stored {
        let status = match (sealed, Some(key.dek_version) == newest) {
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

/// All data keys of a project, which nobody else changes until the transaction ends; PT404 if it has
/// none.
pub fn locked(project: &Uuid) -> Result<Vec<StoredDek>> {
    // Until all that there are, are ours: further versions may appear while this waits.
    let stored = loop {
        let seized = data_keys::seize(project)?;
        let stored = data_keys::of_project(project, Sees::Latest)?;
        if stored.len() == seized {
            break stored;
        }
    };
    if stored.is_empty() {
        return Err(Error::new("PT404", "project has no data key")
            .detail("No secret was ever stored in this project.")
            .hint("Check the project id."));
    }
    Ok(stored)
}

/// The active data key, which cannot be removed until the transaction ends. Another one may become
/// active between finding it and holding it.
fn held_active_dek(project: &Uuid) -> Result<Option<VersionedDek>> {
    loop {
        let Some(found) = active_dek(project)? else {
            return Ok(None);
        };
        data_keys::hold(project, found.dek_version)?;
        match active_dek(project)? {
            Some(held) if held.dek_version == found.dek_version => return Ok(Some(held)),
            _ => {}
        }
    }
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

pub fn unwrap_dek(project: &Uuid, stored: &StoredDek) -> Result<Dek> {
    let identity = identity(project, stored)?;
    let dek = kek_to_unwrap(stored.kek_id)?.unwrap(&stored.encrypted, &identity)?;
    // Looked at only now that it is authenticated.
    if identity.status == DekStatus::Disabled {
        return Err(project_sealed());
    }
    Ok(dek)
}

/// PT503: the active KEK was disabled or marked as compromised.
pub fn no_active_kek() -> Error {
    Error::sealed(
        "No KEK is active.",
        "A member of meshhook_secrets_kek_admin makes another one active with meshhook_secrets.kek_rotate().",
    )
}

/// PT503: the project is sealed.
pub fn project_sealed() -> Error {
    Error::sealed(
        "The project is sealed.",
        "A member of meshhook_secrets_kek_admin opens it with meshhook_secrets.unseal(project_id).",
    )
}

/// What the wrap of a data key is bound to.
pub fn identity(project: &Uuid, stored: &StoredDek) -> Result<DekIdentity> {
    Ok(DekIdentity {
        project_id: *project,
        dek_version: stored.dek_version,
        kek_id: stored.kek_id,
        status: stored.status.parse()?,
    })
}

/// The KEK with this id, to unwrap a data key.
pub fn kek_to_unwrap(kek_id: i32) -> Result<Kek> {
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

/// The active KEK, to wrap a data key; the first one is made here. It cannot be retired until the
/// transaction ends.
pub fn kek_to_wrap() -> Result<(i32, Kek)> {
    if let Some(found) = held_active_kek()? {
        return Ok(found);
    }
    scan::lock_against_writers("kek_storage")?;
    if let Some(found) = held_active_kek()? {
        return Ok(found);
    }
    if !keks::all(Sees::Latest)?.is_empty() {
        return Err(no_active_kek());
    }
    let kek = make_kek(1, KekStatus::Active)?;
    Ok((1, kek))
}

/// The active KEK. A rotation may come between finding it and holding it: then there is another.
fn held_active_kek() -> Result<Option<(i32, Kek)>> {
    loop {
        let Some(kek_id) = active_kek()?.map(|stored| stored.kek_id) else {
            return Ok(None);
        };
        keks::hold(kek_id)?;
        if let Some(stored) = active_kek()?.filter(|stored| stored.kek_id == kek_id) {
            return Ok(Some((kek_id, unwrap_kek(&stored)?.1)));
        }
    }
}

/// The row of the active KEK.
pub fn active_kek() -> Result<Option<StoredKek>> {
    let stored = keks::all(Sees::Latest)?;
    let may_wrap = |kek: &StoredKek| kek.status.parse().is_ok_and(KekStatus::may_wrap);
    Ok(stored.into_iter().find(may_wrap))
}

/// Makes a KEK under the current root key.
pub fn make_kek(kek_id: i32, status: KekStatus) -> Result<Kek> {
    require_known_root_key()?;
    let kek = Kek::generate()?;
    let (root_key_id, encrypted) = wrap_kek(kek_id, status, &kek)?;
    keks::insert(kek_id, &encrypted, &root_key_id, status.as_str())?;
    Ok(kek)
}

/// PT503 if the loaded root keys are others than those of the KEKs that there are: nothing is to be mixed
/// into data of another root key.
fn require_known_root_key() -> Result<()> {
    keyring::require_open()?;
    let loaded = keyring::root_ids()?;
    let mut stored = keks::all(Sees::Latest)?;
    stored.retain(|kek| kek.encrypted.is_some());
    match stored.first() {
        Some(first) if stored.iter().all(|kek| !loaded.contains(&kek.root_key_id)) => Err(missing(
            &format!("KEK {} of this database", first.kek_id),
            &first.root_key_id,
            &loaded,
        )),
        _ => Ok(()),
    }
}

/// Wraps a KEK with the current root key: the root key's fingerprint and the envelope.
pub fn wrap_kek(kek_id: i32, status: KekStatus, kek: &Kek) -> Result<(String, Vec<u8>)> {
    keyring::require_open()?;
    let root_key_id = keyring::root_ids()?.into_iter().next().ok_or_else(no_root_key)?;
    let root = keyring::root(&root_key_id)?.ok_or_else(no_root_key)?;
    let identity = KekIdentity { kek_id, root_key_id: &root_key_id, status };
    let encrypted = root.wrap(kek, &identity)?;
    Ok((root_key_id, encrypted))
}

/// Unwraps a KEK with its root key, or finds it in memory. A KEK in memory is found only by the
/// very row that was authenticated when it was unwrapped, so a changed row is always noticed.
pub fn unwrap_kek(stored: &StoredKek) -> Result<(KekStatus, Kek)> {
    let Some(digest) = digest(stored)? else {
        return Err(Error::sealed(
            format!("KEK {} is destroyed.", stored.kek_id),
            "What it wrapped cannot be recovered, except from a backup made before.",
        ));
    };
    let status: KekStatus = stored.status.parse()?;
    if let Some(kek) = keyring::kek(&digest)? {
        return Ok((status, kek));
    }
    let kek = unwrap_kek_anew(stored)?;
    keyring::keep_kek(&digest, &kek, &stored.root_key_id)?;
    Ok((status, kek))
}

/// Unwraps a KEK with its root key, whether or not it is in memory.
pub fn unwrap_kek_anew(stored: &StoredKek) -> Result<Kek> {
    let status: KekStatus = stored.status.parse()?;
    let encrypted = stored.encrypted.as_deref().ok_or_else(Error::corrupted)?;
    let Some(root) = keyring::root(&stored.root_key_id)? else {
        return Err(missing_root_key(stored, status, encrypted)?);
    };
    let identity = KekIdentity { kek_id: stored.kek_id, root_key_id: &stored.root_key_id, status };
    Ok(root.unwrap(encrypted, &identity)?)
}

/// Wipes a KEK from memory.
pub fn forget(stored: &StoredKek) -> Result<()> {
    match digest(stored)? {
        Some(digest) => keyring::forget_kek(&digest),
        None => Ok(()),
    }
}

/// What a KEK is found by in memory; `None` once it is destroyed.
fn digest(stored: &StoredKek) -> Result<Option<[u8; 32]>> {
    let status = stored.status.parse()?;
    let identity = KekIdentity { kek_id: stored.kek_id, root_key_id: &stored.root_key_id, status };
    Ok(stored.encrypted.as_deref().map(|encrypted| wrap_digest(&identity, encrypted)))
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
    Ok(missing(&format!("KEK {} of this database", stored.kek_id), &stored.root_key_id, &loaded))
}

/// PT503: what is wrapped by a root key that is not loaded cannot be had.
pub fn missing(what: &str, root_key_id: &str, loaded: &[String]) -> Error {
    let needed: String = root_key_id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    Error::sealed(
        format!("{what} needs the root key {needed}; loaded is {}.", loaded.join(", ")),
        format!(
            "Put the root key with fingerprint {needed} into the root key source and reload the server."
        ),
    )
}

/// PT503: no root key is loaded.
pub fn no_root_key() -> Error {
    Error::sealed("The root key is not loaded.", "Try again.")
}
