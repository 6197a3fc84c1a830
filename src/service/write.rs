//! Writing: every write makes a new version.

use super::{access, keys, keys::VersionedDek, reveal};
use crate::{
    error::{Error, Result},
    gucs,
    pg::{scan::Sees, server},
    store::{
        Timestamp, Uuid,
        secrets::{self, Description, Secret},
        versions::{self, StoredVersion},
    },
};
use meshhook_secrets_core::{
    identity::ValueIdentity,
    key::{Dek, MAC_LEN},
    name::SecretName,
    random,
};
use pgrx::pg_sys::Datum;

/// How a value is to be stored.
pub struct Options {
    /// The current version that the secret must have; 0: it must not exist.
    pub cas: Option<i32>,
    pub description: Option<Datum>,
    pub metadata: Option<Datum>,
    /// When the new version stops working.
    pub expires_at: Option<Timestamp>,
    /// When the previous version stops working.
    pub previous_expires_at: Option<Timestamp>,
}

/// The version that was written.
pub struct Written {
    pub id: Uuid,
    pub version: i32,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// Stores a value as a new version, and the secret if there is none.
pub fn put(project: &Uuid, name: &str, value: &[u8], options: &Options) -> Result<Written> {
    let name = SecretName::parse(name)?;
    let limit = gucs::max_value_size();
    if value.len() > limit {
        return Err(Error::too_large(value.len(), limit));
    }
    let now = server::now();
    if options.expires_at.is_some_and(|at| at <= now) {
        return Err(Error::invalid("expires_at is in the past.").hint(
            "Give a time in the future; meshhook_secrets.secret_expire ends a secret at once.",
        ));
    }
    access::require_writable()?;
    // Each turn either finds the secret or makes it; another turn means that another transaction
    // made it, or removed it, in between.
    for _ in 0..5 {
        let written = match secrets::find_for_update(project, name.as_str())? {
            Some(secret) => add_version(secret, value, options, now)?,
            None => create(project, name.as_str(), value, options, now)?,
        };
        if let Some(written) = written {
            return Ok(written);
        }
    }
    Err(Error::conflict("secret is being changed by others")
        .detail("Other transactions made and removed it at the same time.")
        .hint("Try again."))
}

/// Stores the value of an earlier version as a new one.
pub fn rollback(project: &Uuid, name: &str, version: i32, cas: Option<i32>) -> Result<Written> {
    let name = SecretName::parse(name)?;
    access::require_writable()?;
    let Some(secret) = secrets::find_for_update(project, name.as_str())? else {
        access::require_member(project)?;
        return Err(Error::no_such_secret());
    };
    let dek = keys::dek_to_open(project, secret.dek_version)?;
    let old = reveal::open(&secret, &dek, Some(version), Sees::Latest)?;
    let options = Options {
        cas: cas.or(Some(secret.current_version)),
        description: None,
        metadata: None,
        expires_at: None,
        previous_expires_at: None,
    };
    put(project, name.as_str(), &old, &options)
}

fn create(
    project: &Uuid,
    name: &str,
    value: &[u8],
    options: &Options,
    now: Timestamp,
) -> Result<Option<Written>> {
    access::require_project(project)?;
    if options.cas.is_some_and(|cas| cas != 0) {
        return Err(Error::cas_mismatch(0));
    }
    let key = keys::dek_to_seal(project)?;
    let mut secret = Secret {
        project_id: *project,
        id: random::uuid()?,
        name: name.to_owned(),
        current_version: 1,
        oldest_version: 1,
        dek_version: key.dek_version,
        expires_at: options.expires_at,
        deleted_at: None,
        purge_after: None,
        mac: Vec::new(),
    };
    let author = access::author();
    // Sealed before the first tuple exists: no plaintext ever reaches a page or the WAL.
    let version = seal(&secret, &key, value, now, &author)?;
    authenticate(&mut secret, &key.dek);
    if !secrets::insert(&secret, &options.description(now), &author)? {
        return Ok(None);
    }
    versions::insert(project, &secret.id, &version)?;
    Ok(Some(written(&secret, now)))
}

fn add_version(
    mut secret: Secret,
    value: &[u8],
    options: &Options,
    now: Timestamp,
) -> Result<Option<Written>> {
    let project = secret.project_id;
    let key = keys::dek_to_seal(&project)?;
    match check(&secret, &key) {
        Ok(()) if secret.deleted_at.is_none() => {}
        Ok(()) if secret.purge_after.is_some_and(|after| after > now) => {
            return Err(Error::deleted());
        }
        // Its recovery window has passed, or its row cannot be trusted: nothing of it is taken
        // over. The name starts anew.
        Ok(()) => {
            secrets::delete(&secret)?;
            return Ok(None);
        }
        Err(error) if error.is_corrupted() => {
            secrets::delete(&secret)?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    if options.cas.is_some_and(|cas| cas != secret.current_version) {
        return Err(Error::cas_mismatch(secret.current_version));
    }
    if let Some(at) = options.previous_expires_at {
        expire_previous(&secret, at)?;
    }
    secret.current_version = secret
        .current_version
        .checked_add(1)
        .ok_or_else(|| Error::no_number_left("Purge the secret and store it anew."))?;
    let oldest = secret.current_version.saturating_sub(gucs::max_versions() - 1);
    secret.oldest_version = secret.oldest_version.max(oldest);
    secret.dek_version = key.dek_version;
    secret.expires_at = options.expires_at;
    let version = seal(&secret, &key, value, now, &access::author())?;
    authenticate(&mut secret, &key.dek);
    secrets::update(&secret, &options.description(now))?;
    versions::insert(&project, &secret.id, &version)?;
    versions::destroy_before(&project, &secret.id, secret.oldest_version)?;
    Ok(Some(written(&secret, now)))
}

/// Checks the metadata of a secret that was found; XX001 if it was tampered with. `key` is a data key
/// of the project that is at hand already.
fn check(secret: &Secret, key: &VersionedDek) -> Result<()> {
    if key.dek_version == secret.dek_version {
        return Ok(key.dek.verify(&secret.identity(), &secret.mac)?);
    }
    verified(secret).map(|_| ())
}

/// The data key that made the mac of a secret that was found; XX001 if the secret was tampered with.
pub fn verified(secret: &Secret) -> Result<Dek> {
    let dek = keys::dek_to_open(&secret.project_id, secret.dek_version)?;
    dek.verify(&secret.identity(), &secret.mac)?;
    Ok(dek)
}

/// Gives the metadata of a secret its mac, by this data key, whose version it must name.
pub fn authenticate(secret: &mut Secret, dek: &Dek) {
    secret.mac = dek.authenticate(&secret.identity()).to_vec();
    debug_assert_eq!(secret.mac.len(), MAC_LEN);
}

/// Seals the current version of `secret` anew with another expiry.
pub fn reseal(secret: &Secret, expires_at: Option<Timestamp>) -> Result<()> {
    let (project, id) = (secret.project_id, secret.id);
    let stored = versions::find(&project, &id, secret.current_version, Sees::Latest)?
        .ok_or_else(Error::corrupted)?;
    let dek = keys::dek_to_open(&project, stored.dek_version)?;
    let mut identity = ValueIdentity {
        project_id: project,
        secret_id: id,
        name: &secret.name,
        version: stored.version,
        dek_version: stored.dek_version,
        expires_at: stored.expires_at,
    };
    let value = dek.open(&stored.value, &identity)?;
    identity.expires_at = expires_at;
    let sealed = dek.seal(&value, &identity)?;
    versions::replace(&project, &id, stored.version, stored.dek_version, &sealed, expires_at)
}

/// The version that is about to be replaced stops working at `at`, or earlier if it already would.
/// One that cannot be opened stays as it is: nobody can read it anyway.
fn expire_previous(secret: &Secret, at: Timestamp) -> Result<()> {
    let at = secret.expires_at.map_or(at, |own| own.min(at));
    match reseal(secret, Some(at)) {
        Err(error) if error.is_corrupted() => Ok(()),
        other => other,
    }
}

fn seal(
    secret: &Secret,
    key: &VersionedDek,
    value: &[u8],
    now: Timestamp,
    author: &str,
) -> Result<StoredVersion> {
    let identity = ValueIdentity {
        project_id: secret.project_id,
        secret_id: secret.id,
        name: &secret.name,
        version: secret.current_version,
        dek_version: key.dek_version,
        expires_at: secret.expires_at,
    };
    Ok(StoredVersion {
        version: secret.current_version,
        dek_version: key.dek_version,
        value: key.dek.seal(value, &identity)?,
        created_at: now,
        created_by: author.to_owned(),
        expires_at: secret.expires_at,
    })
}

fn written(secret: &Secret, now: Timestamp) -> Written {
    Written {
        id: secret.id,
        version: secret.current_version,
        created_at: now,
        expires_at: secret.expires_at,
    }
}

impl Options {
    fn description(&self, now: Timestamp) -> Description {
        Description { description: self.description, metadata: self.metadata, now }
    }
}
