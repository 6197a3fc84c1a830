//! Rotation of the root key: every KEK and audit key is wrapped anew, in one transaction.

use super::{access, audit, keys};
use crate::{
    error::{Error, Result},
    pg::{raise, scan, scan::Sees, server},
    shmem::keyring,
    store::{audit_keys, keks},
};
use meshhook_secrets_core::kek_status::KekStatus;

/// A KEK that was wrapped anew.
pub struct Moved {
    pub kek_id: i32,
    pub former_root_key_id: String,
    pub root_key_id: String,
}

/// A root key, and how its KEKs are.
pub struct Verified {
    pub root_key_id: String,
    pub keks: i64,
    pub good: i64,
    pub problem: Option<String>,
}

/// Wraps every KEK with the current root key, and checks each. On a subscriber the publisher has done that, and
/// only the audit keys are its own.
pub fn rotate() -> Result<Vec<Moved>> {
    server::require_writable()?;
    keyring::require_open()?;
    scan::lock_against_writers("kek_storage")?;
    let loaded = keyring::root_ids()?;
    let current = loaded.first().cloned().unwrap_or_default();
    let mut moved = Vec::new();
    for stored in keks::all(Sees::Latest)? {
        if stored.encrypted.is_none() || stored.root_key_id == current {
            continue;
        }
        access::require_writable()?;
        let status: KekStatus = stored.status.parse()?;
        let kek = keys::unwrap_kek_anew(&stored)?;
        let (root_key_id, encrypted) = keys::wrap_kek(stored.kek_id, status, &kek)?;
        keys::forget(&stored)?;
        let destroy_after = stored.destroy_after;
        keks::update(
            stored.kek_id,
            Some(&encrypted),
            &root_key_id,
            status.as_str(),
            destroy_after,
        )?;
        let former_root_key_id = stored.root_key_id;
        moved.push(Moved { kek_id: stored.kek_id, former_root_key_id, root_key_id });
    }
    // What was written must open before what it replaces is thrown away.
    for stored in keks::all(Sees::Latest)? {
        if stored.encrypted.is_some() {
            let same = keys::unwrap_kek_anew(&stored).is_ok() && stored.root_key_id == current;
            if !same {
                return Err(Error::corrupted());
            }
        }
    }
    audit::keys::rewrap()?;
    raise::log(
        pgrx::PgLogLevel::NOTICE,
        &format!("every KEK of this database is wrapped by root key {current}"),
        Some(
            "Once this is committed, in every database of the server that uses meshhook_secrets, the former lines can be removed from the root key source; keep them with the backups made before.",
        ),
    );
    Ok(moved)
}

/// Unwraps every KEK with the root key that it names.
pub fn verify() -> Result<Vec<Verified>> {
    let mut keys: Vec<Verified> = Vec::new();
    for root_key_id in keyring::root_ids()? {
        keys.push(Verified { root_key_id, keks: 0, good: 0, problem: None });
    }
    let loaded = keys.len();
    for stored in keks::all(Sees::Statement)?.into_iter().filter(|kek| kek.encrypted.is_some()) {
        let position = match keys.iter().position(|key| key.root_key_id == stored.root_key_id) {
            Some(position) => position,
            None => {
                let root_key_id = stored.root_key_id.clone();
                keys.push(Verified { root_key_id, keks: 0, good: 0, problem: None });
                keys.len() - 1
            }
        };
        let key = &mut keys[position];
        key.keks += 1;
        if position >= loaded {
            key.problem = Some(String::from("not loaded"));
        } else if keys::unwrap_kek_anew(&stored).is_ok() {
            key.good += 1;
        } else {
            key.problem = Some(format!("KEK {} does not authenticate", stored.kek_id));
        }
    }
    for stored in audit_keys::all(Sees::Statement)? {
        let known = keys.iter().position(|key| key.root_key_id == stored.root_key_id);
        let position = known.unwrap_or_else(|| {
            let root_key_id = stored.root_key_id.clone();
            let problem = Some(String::from("not loaded"));
            keys.push(Verified { root_key_id, keks: 0, good: 0, problem });
            keys.len() - 1
        });
        if position < loaded && audit::keys::unwrap(&stored).is_err() {
            let problem = format!("audit key {} does not authenticate", stored.key_version);
            keys[position].problem = Some(problem);
        }
    }
    Ok(keys)
}
