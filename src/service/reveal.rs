//! Revealing: the row as the caller sees it, then the keys, then the value.

use super::{
    access,
    audit::{self, Event},
    keys,
};
use crate::{
    error::{Error, Result},
    pg::{scan::Sees, server},
    store::{
        Uuid,
        secrets::{self, Secret},
        versions::{self, StoredVersion},
    },
};
use meshhook_secrets_core::{audit::Outcome, identity::ValueIdentity, key::Dek, name::SecretName};
use pgrx::pg_sys::Datum;
use zeroize::Zeroizing;

/// A revealed value; wiped on drop.
pub type Value = Zeroizing<Vec<u8>>;

/// A secret of [`many`]: its value, or why there is none.
pub struct Item {
    pub name: String,
    pub id: Option<Uuid>,
    pub version: Option<i32>,
    pub outcome: std::result::Result<Value, &'static str>,
}

/// Names in one call of [`many`]. A workflow run needs a handful.
const NAMES_MAX: usize = 1000;

/// The value of a secret.
pub fn one(project: &Uuid, name: &str, version: Option<i32>, event: &mut Event) -> Result<Value> {
    let name = SecretName::parse(name)?;
    let Some(secret) = secrets::find(project, name.as_str())? else {
        access::require_member(project)?;
        access::require_reveal(project)?;
        return Err(Error::no_such_secret());
    };
    event.secret(&secret.id, version.unwrap_or(secret.current_version));
    access::require_reveal(project)?;
    let dek = keys::dek_to_open(project, secret.dek_version)?;
    open(&secret, &dek, version, Sees::Statement)
}

/// The current values of many secrets. One that cannot be revealed fails alone.
pub fn many(
    project: &Uuid,
    names: Option<(Vec<String>, Datum)>,
    event: &mut Event,
) -> Result<Vec<Item>> {
    if let Some((names, _)) = &names {
        if names.len() > NAMES_MAX {
            return Err(Error::invalid(format!("More than {NAMES_MAX} names are given."))
                .hint("Ask for them in several calls."));
        }
        for name in names {
            SecretName::parse(name)?;
        }
    }
    access::require_member(project)?;
    access::require_reveal(project)?;
    keys::require_open()?;
    let found = secrets::find_many(project, names.as_ref().map(|(_, array)| *array))?;
    let mut deks = Deks { project, kept: Vec::new() };
    let mut items = Vec::with_capacity(found.len());
    match names {
        None => {
            for secret in &found {
                let item = item(secret, &mut deks)?;
                // Left out only once its deletion is authenticated.
                if item.outcome != Err("deleted") {
                    items.push(item);
                }
            }
        }
        Some((names, _)) => {
            let mut asked = std::collections::HashSet::new();
            for name in names {
                if !asked.insert(name.clone()) {
                    continue;
                }
                items.push(match found.iter().find(|secret| secret.name == name) {
                    Some(secret) => item(secret, &mut deks)?,
                    None => Item { name, id: None, version: None, outcome: Err("not_found") },
                });
            }
        }
    }
    // Nothing opens: not a matter of single secrets.
    if let Some(secret) = found.first()
        && items.iter().all(|item| item.outcome == Err("sealed"))
    {
        deks.get(secret.dek_version)?;
    }
    event.items = items.iter().map(audited).collect();
    Ok(items)
}

/// Opens a version of a secret after checking its metadata.
pub fn open(secret: &Secret, dek: &Dek, version: Option<i32>, sees: Sees) -> Result<Value> {
    dek.verify(&secret.identity(), &secret.mac)?;
    if secret.deleted_at.is_some() {
        return Err(Error::deleted());
    }
    let version = version.unwrap_or(secret.current_version);
    if !(1..=secret.current_version).contains(&version) {
        return Err(Error::no_such_version(version, secret.current_version));
    }
    if version < secret.oldest_version {
        return Err(Error::destroyed(secret.oldest_version));
    }
    let stored = versions::find(&secret.project_id, &secret.id, version, sees)?
        .ok_or_else(Error::corrupted)?;
    let value = open_version(secret, dek, &stored)?;
    if stored.expires_at.is_some_and(|at| at <= server::now()) {
        return Err(Error::expired());
    }
    Ok(value)
}

/// Opens a stored version, expired or not. `dek` is the one of the metadata, most likely also the
/// one of the value.
pub fn open_version(secret: &Secret, dek: &Dek, stored: &StoredVersion) -> Result<Value> {
    let identity = ValueIdentity {
        project_id: secret.project_id,
        secret_id: secret.id,
        name: &secret.name,
        version: stored.version,
        dek_version: stored.dek_version,
        expires_at: stored.expires_at,
    };
    if stored.dek_version == secret.dek_version {
        return Ok(dek.open(&stored.value, &identity)?);
    }
    let dek = keys::dek_to_open(&secret.project_id, stored.dek_version)?;
    Ok(dek.open(&stored.value, &identity)?)
}

/// The data keys of one project, each fetched once.
struct Deks<'a> {
    project: &'a Uuid,
    kept: Vec<(i32, Dek)>,
}

impl Deks<'_> {
    fn get(&mut self, dek_version: i32) -> Result<&Dek> {
        let position = match self.kept.iter().position(|(version, _)| *version == dek_version) {
            Some(position) => position,
            None => {
                let dek = keys::dek_to_open(self.project, dek_version)?;
                self.kept.push((dek_version, dek));
                self.kept.len() - 1
            }
        };
        Ok(&self.kept[position].1)
    }
}

fn item(secret: &Secret, deks: &mut Deks<'_>) -> Result<Item> {
    let revealed =
        deks.get(secret.dek_version).and_then(|dek| open(secret, dek, None, Sees::Statement));
    let outcome = match revealed {
        Ok(value) if server::is_text(&value) => Ok(value),
        Ok(_) => Err("binary"),
        Err(error) => Err(match error.state() {
            Some("XX001") => "corrupted",
            Some("PT410") if secret.deleted_at.is_some() => "deleted",
            Some("PT410") => "expired",
            Some("PT503") => "sealed",
            _ => return Err(error),
        }),
    };
    let (id, version) = (Some(secret.id), Some(secret.current_version));
    Ok(Item { name: secret.name.clone(), id, version, outcome })
}

/// What the audit log says of an item.
fn audited(item: &Item) -> audit::Item {
    let (outcome, sqlstate) = match item.outcome {
        Ok(_) => (Outcome::Ok, None),
        Err("not_found") => (Outcome::NotFound, Some("PT404")),
        Err("deleted" | "expired") => (Outcome::NotFound, Some("PT410")),
        Err("sealed") => (Outcome::Error, Some("PT503")),
        Err("binary") => (Outcome::Error, Some("22023")),
        Err(_) => (Outcome::Error, Some("XX001")),
    };
    audit::Item {
        name: item.name.clone(),
        secret_id: item.id,
        version: item.version,
        outcome,
        sqlstate,
    }
}
