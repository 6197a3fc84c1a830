//! Sealing the server and single projects, and what people ask about root keys.

use super::{access, keys};
use crate::{
    error::{Error, Refusal, Result},
    gucs,
    pg::{scan::Sees, server},
    shmem::{audit, keyring},
    store::{Uuid, audit_keys, data_keys, keks},
};

/// A root key that is loaded, or that KEKs of this database need.
pub struct RootKeyInfo {
    pub id: String,
    pub is_current: bool,
    pub is_loaded: bool,
    pub keks: i64,
}

/// Wipes all keys from memory, or disables the data keys of one project.
pub fn seal(project: Option<&Uuid>) -> Result<()> {
    match project {
        None => {
            keyring::seal()?;
            audit::server_event("sealed", false, "by an operator");
            Ok(())
        }
        Some(project) => {
            access::require_writable()?;
            keys::set_project_sealed(project, true)
        }
    }
}

/// Fetches the root key anew and waits for it, or enables the data keys of one project.
pub fn unseal(project: Option<&Uuid>) -> Result<()> {
    if let Some(project) = project {
        access::require_writable()?;
        return keys::set_project_sealed(project, false);
    }
    let asked = keyring::ask()?;
    let patience = gucs::root_key_timeout().as_micros() as i64 + 5_000_000;
    let started = server::uptime();
    while !keyring::is_answered(asked)? {
        if server::uptime() - started > patience {
            return Err(Error::sealed(
                "The root key worker does not answer.",
                "Look at the server log, and whether the server has a process titled \"meshhook_secrets root key\".",
            ));
        }
        server::pause(10);
    }
    keyring::require_open()?;
    audit::server_event("unsealed", false, "by an operator");
    Ok(())
}

/// Whether and why the server is sealed, and how many projects of this database are.
pub fn status() -> Result<(keyring::Status, i64)> {
    Ok((keyring::status()?, data_keys::sealed_projects()?))
}

/// Why a project of the caller's cannot be used, if so: the refusal that its callers meet.
pub fn of_project(project: &Uuid) -> Result<Option<Box<Refusal>>> {
    access::require_member(project)?;
    keys::why_sealed(project)
}

/// The root keys that are loaded or needed.
pub fn root_keys() -> Result<Vec<RootKeyInfo>> {
    let loaded = keyring::root_ids()?;
    let mut keys: Vec<RootKeyInfo> = loaded
        .into_iter()
        .enumerate()
        .map(|(position, id)| RootKeyInfo {
            id,
            is_current: position == 0,
            is_loaded: true,
            keks: 0,
        })
        .collect();
    for kek in keks::all(Sees::Statement)?.into_iter().filter(|kek| kek.encrypted.is_some()) {
        match keys.iter_mut().find(|key| key.id == kek.root_key_id) {
            Some(key) => key.keks += 1,
            None => keys.push(RootKeyInfo {
                id: kek.root_key_id,
                is_current: false,
                is_loaded: false,
                keks: 1,
            }),
        }
    }
    for stored in audit_keys::all(Sees::Statement)? {
        if keys.iter().all(|key| key.id != stored.root_key_id) {
            let id = stored.root_key_id;
            keys.push(RootKeyInfo { id, is_current: false, is_loaded: false, keks: 0 });
        }
    }
    Ok(keys)
}
