//! Deletion and expiry.

use super::{access, keys, write};
use crate::{
    error::{Error, Result},
    gucs,
    pg::{scan::Sees, server},
    store::{
        Timestamp, Uuid,
        secrets::{self, Description, Secret},
    },
};
use meshhook_secrets_core::name::SecretName;

/// Deletes a secret; it can be undeleted until the recovery window has passed.
pub fn delete(project: &Uuid, name: &str) -> Result<()> {
    let mut secret = locked(project, name)?;
    let trusted = trusted(&secret)?;
    if trusted && secret.deleted_at.is_some() {
        return Err(Error::deleted());
    }
    let now = server::now();
    secret.deleted_at = Some(now);
    secret.purge_after = Some(now.saturating_add(gucs::recovery_window()));
    // A row that was tampered with can be deleted, but keeps its bad mac: deleting and undeleting
    // must not make it good.
    save(secret, trusted, now)
}

/// Brings a deleted secret back.
pub fn undelete(project: &Uuid, name: &str) -> Result<()> {
    let mut secret = locked(project, name)?;
    write::check(&secret)?;
    let now = server::now();
    match (secret.deleted_at, secret.purge_after) {
        (None, _) => {
            return Err(Error::conflict("secret is not deleted").hint(
                "meshhook_secrets.secret_list with include_deleted => true shows which are.",
            ));
        }
        (Some(_), Some(after)) if after > now => {}
        _ => {
            return Err(Error::new("PT410", "recovery window has passed")
                .hint("Store the secret again with meshhook_secrets.secret_put."));
        }
    }
    secret.deleted_at = None;
    secret.purge_after = None;
    save(secret, true, now)
}

/// Removes a secret for good.
pub fn purge(project: &Uuid, name: &str, confirm: &str) -> Result<()> {
    if confirm != name {
        return Err(Error::invalid("confirm is not the name of the secret.")
            .hint("A purge is final: give the name once more as confirm."));
    }
    secrets::delete(&locked(project, name)?)
}

/// Sets when the current version stops working.
pub fn expire(project: &Uuid, name: &str, expires_at: Option<Timestamp>) -> Result<()> {
    let mut secret = locked(project, name)?;
    write::check(&secret)?;
    if secret.deleted_at.is_some() {
        return Err(Error::deleted());
    }
    write::reseal(&secret, expires_at)?;
    secret.expires_at = expires_at;
    save(secret, true, server::now())
}

fn locked(project: &Uuid, name: &str) -> Result<Secret> {
    let name = SecretName::parse(name)?;
    server::require_writable()?;
    match secrets::find_for_update(project, name.as_str())? {
        Some(secret) => Ok(secret),
        None => {
            access::require_member(project)?;
            Err(Error::no_such_secret())
        }
    }
}

fn trusted(secret: &Secret) -> Result<bool> {
    match write::check(secret) {
        Ok(()) => Ok(true),
        Err(error) if error.is_corrupted() => Ok(false),
        Err(error) => Err(error),
    }
}

fn save(mut secret: Secret, trusted: bool, now: Timestamp) -> Result<()> {
    if trusted {
        let dek = keys::dek_to_open(&secret.project_id, secret.dek_version, Sees::Latest)?;
        write::authenticate(&mut secret, &dek);
    }
    secrets::update(&secret, &Description { description: None, metadata: None, now })
}
