//! Verification: does everything open that must?

use super::{kek_life, keys, reveal};
use crate::{
    error::Result,
    pg::scan::Sees,
    store::{
        data_keys,
        data_keys::Wrapped,
        keks::{self, StoredKek},
        secrets, settings, versions,
    },
};

/// How a KEK and what hangs on it are.
pub struct Verified {
    pub kek_id: i32,
    pub status: String,
    pub wraps: i64,
    pub good: i64,
    pub bad: i64,
    pub problem: Option<String>,
}

/// Data keys read at a time.
const BATCH: i64 = 1000;

/// Checks one KEK or all of them; if `deep`, also every data key and every secret of its project.
pub fn keks(kek_id: Option<i32>, deep: bool) -> Result<Vec<Verified>> {
    crate::shmem::keyring::require_open()?;
    let mut stored = keks::all(Sees::Statement)?;
    stored.retain(|kek| kek_id.is_none_or(|wanted| kek.kek_id == wanted));
    if stored.is_empty() && kek_id.is_some() {
        return Err(kek_life::no_such_kek());
    }
    stored.sort_by_key(|kek| kek.kek_id);
    let verified: Vec<Verified> =
        stored.iter().map(|kek| verify(kek, deep)).collect::<Result<_>>()?;
    if deep && kek_id.is_none() && verified.iter().all(|kek| kek.problem.is_none()) {
        settings::remember("last_kek_verify")?;
    }
    Ok(verified)
}

fn verify(stored: &StoredKek, deep: bool) -> Result<Verified> {
    let mut verified = Verified {
        kek_id: stored.kek_id,
        status: stored.status.clone(),
        wraps: data_keys::count_of_kek(stored.kek_id)?,
        good: 0,
        bad: 0,
        problem: None,
    };
    if stored.encrypted.is_none() {
        verified.bad = verified.wraps;
        verified.problem = (verified.wraps > 0).then(|| String::from("the KEK is destroyed"));
        return Ok(verified);
    }
    if let Err(error) = keys::unwrap_kek_anew(stored) {
        verified.problem = Some(match error.state() {
            Some("XX001") => String::from("the KEK does not authenticate"),
            Some(_) => String::from("its root key is not loaded"),
            None => return Err(error),
        });
        return Ok(verified);
    }
    if !deep {
        return Ok(verified);
    }
    let (mut project, mut version) = ([0; 16], -1);
    loop {
        let batch = data_keys::list_of_kek(stored.kek_id, (&project, version), BATCH)?;
        let Some(last) = batch.last() else {
            return Ok(verified);
        };
        (project, version) = (last.project_id, last.key.dek_version);
        for wrapped in &batch {
            match check_project(stored, wrapped)? {
                None => verified.good += 1,
                Some(problem) => {
                    verified.bad += 1;
                    verified.problem.get_or_insert(problem);
                }
            }
        }
    }
}

/// Checks a data key and what it seals; what is wrong with it.
fn check_project(kek: &StoredKek, wrapped: &Wrapped) -> Result<Option<String>> {
    let project = uuid(&wrapped.project_id);
    let bad = |what: &str| Ok(Some(format!("{what} of project {project} does not authenticate")));
    let Ok(identity) = keys::identity(&wrapped.project_id, &wrapped.key) else {
        return bad("a data key");
    };
    let (_, kek) = keys::unwrap_kek(kek)?;
    let Ok(dek) = kek.unwrap(&wrapped.key.encrypted, &identity) else {
        return bad("a data key");
    };
    if wrapped.key.status == "disabled" {
        return Ok(None);
    }
    for secret in secrets::all_of_dek(&wrapped.project_id, wrapped.key.dek_version)? {
        if dek.verify(&secret.identity(), &secret.mac).is_err() {
            return bad("a secret");
        }
        for stored in versions::of_secret(&secret.project_id, &secret.id, Sees::Statement)? {
            match reveal::open_version(&secret, &dek, &stored) {
                Ok(_) => {}
                Err(error) if error.is_corrupted() => return bad("a version"),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
