//! Deletion and expiry.

use super::{access, audit::Event, write};
use crate::{
    error::{Error, Result},
    gucs,
    pg::server,
    store::{
        Timestamp, Uuid,
        secrets::{self, Description, Secret},
    },
};
use meshhook_secrets_core::{key::Dek, name::SecretName};

/// Deletes a secret; it can be undeleted until the recovery window has passed.
pub fn delete(project: &Uuid, name: &str, event: &mut Event) -> Result<()> {
    let mut secret = locked(project, name, event)?;
    // A row that was tampered with can be deleted, but keeps its bad mac: deleting and undeleting
    // must not make it good.
    let dek = match write::verified(&secret) {
        Ok(dek) => Some(dek),
        Err(error) if error.is_corrupted() => None,
        Err(error) => return Err(error),
    };
    if dek.is_some() && secret.deleted_at.is_some() {
        return Err(Error::deleted());
    }
    let now = server::now();
    secret.deleted_at = Some(now);
    secret.purge_after = Some(now.saturating_add(gucs::recovery_window()));
    save(secret, dek.as_ref(), now)
}

/// Brings a deleted secret back.
pub fn undelete(project: &Uuid, name: &str, event: &mut Event) -> Result<()> {
    let mut secret = locked(project, name, event)?;
    let dek = write::verified(&secret)?;
    let now = server::now();
    match (secret.deleted_at, secret.purge_after) {
        (None, _) => {
            return Err(Error::conflict("secret is not deleted")
                .detail("There is nothing to restore.")
                .hint(
                    "meshhook_secrets.secret_list with include_deleted => true shows which are.",
                ));
        }
        (Some(_), Some(after)) if after > now => {}
        _ => {
            return Err(Error::new("PT410", "recovery window has passed")
                .detail("The secret was deleted too long ago to be restored.")
                .hint("Store the secret again with meshhook_secrets.secret_put."));
        }
    }
    secret.deleted_at = None;
    secret.purge_after = None;
    save(secret, Some(&dek), now)
}

/// Removes a secret for good.
pub fn purge(project: &Uuid, name: &str, confirm: &str, event: &mut Event) -> Result<()> {
    if confirm != name {
        return Err(Error::invalid("confirm is not the name of the secret.")
            .hint("A purge is final: give the name once more as confirm."));
    }
    secrets::delete(&locked(project, name, event)?)
}

/// Sets when the current version stops working.
pub fn expire(
    project: &Uuid,
    name: &str,
    expires_at: Option<Timestamp>,
    event: &mut Event,
) -> Result<()> {
    let mut secret = locked(project, name, event)?;
    let dek = write::verified(&secret)?;
    if secret.deleted_at.is_some() {
        return Err(Error::deleted());
    }
    write::reseal(&secret, expires_at)?;
    secret.expires_at = expires_at;
    save(secret, Some(&dek), server::now())
}

fn locked(project: &Uuid, name: &str, event: &mut Event) -> Result<Secret> {
    let name = SecretName::parse(name)?;
    access::require_writable()?;
    match secrets::find_for_update(project, name.as_str())? {
        Some(secret) => {
            event.secret(&secret.id, secret.current_version);
            Ok(secret)
        }
        None => {
            access::require_member(project)?;
            Err(Error::no_such_secret())
        }
    }
}

/// Writes the state of a secret, with a new mac by `dek` if there is one.
fn save(mut secret: Secret, dek: Option<&Dek>, now: Timestamp) -> Result<()> {
    if let Some(dek) = dek {
        write::authenticate(&mut secret, dek);
    }
    secrets::update(&secret, &Description { description: None, metadata: None, now })
}
