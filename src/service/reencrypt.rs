//! After a compromise: new data keys, and every value sealed anew.

use super::{access, keys, reveal, write};
use crate::{
    error::{Error, Result},
    pg::scan::Sees,
    store::{Uuid, data_keys, secrets, versions},
};
use meshhook_secrets_core::{
    dek_status::DekStatus,
    identity::{DekIdentity, ValueIdentity},
    key::Dek,
};

/// Makes a new data key for a project.
pub fn rotate_dek(project: &Uuid) -> Result<i32> {
    access::require_writable()?;
    let stored = keys::locked(project)?;
    for key in stored.iter().filter(|key| key.status == DekStatus::Active.as_str()) {
        let mut identity = keys::identity(project, key)?;
        let kek = keys::kek_to_unwrap(key.kek_id)?;
        let dek = kek.unwrap(&key.encrypted, &identity)?;
        identity.status = DekStatus::Retiring;
        let wrapped = kek.wrap(&dek, &identity)?;
        data_keys::replace(project, key.dek_version, &wrapped, identity.status.as_str())?;
    }
    if stored.iter().any(|key| key.status == DekStatus::Disabled.as_str()) {
        return Err(keys::project_sealed());
    }
    let newest = stored.iter().map(|key| key.dek_version).max().unwrap_or(0);
    let dek_version = newest
        .checked_add(1)
        .ok_or_else(|| Error::no_number_left("Move the secrets to another project."))?;
    let (kek_id, kek) = keys::kek_to_wrap()?;
    let identity =
        DekIdentity { project_id: *project, dek_version, kek_id, status: DekStatus::Active };
    let wrapped = kek.wrap(&Dek::generate()?, &identity)?;
    data_keys::insert_active(project, dek_version, kek_id, &wrapped)?;
    Ok(dek_version)
}

/// Seals everything of a project anew with its active data key; the number of versions.
pub fn project(project: &Uuid) -> Result<i64> {
    access::require_writable()?;
    // Secrets first, then data keys: the order in which writers take them. Once the data keys are ours,
    // nobody is writing, and what was written meanwhile is seen by the second look.
    secrets::all_for_update(project)?;
    let former = keys::locked(project)?;
    let key = keys::dek_to_seal(project)?;
    let mut count = 0;
    for mut secret in secrets::all_for_update(project)? {
        let metadata_dek = write::verified(&secret)?;
        for stored in versions::of_secret(project, &secret.id, Sees::Latest)? {
            let value = reveal::open_version(&secret, &metadata_dek, &stored)?;
            let identity = ValueIdentity {
                project_id: *project,
                secret_id: secret.id,
                name: &secret.name,
                version: stored.version,
                dek_version: key.dek_version,
                expires_at: stored.expires_at,
            };
            let sealed = key.dek.seal(&value, &identity)?;
            let (version, expires_at) = (stored.version, stored.expires_at);
            versions::replace(project, &secret.id, version, key.dek_version, &sealed, expires_at)?;
            count += 1;
        }
        secret.dek_version = key.dek_version;
        write::authenticate(&mut secret, &key.dek);
        secrets::update_mac(&secret)?;
    }
    for old in former.iter().filter(|old| old.dek_version != key.dek_version) {
        data_keys::delete(project, old.dek_version)?;
    }
    Ok(count)
}
