//! Checking the chain of seals and every record under it.

use super::{
    keys as audit_keys,
    writer::{TAMPERED, require_whole_log},
};
use crate::{
    error::{Error, Result},
    pg::{catalog, server, spi::LatestState},
    shmem::audit as ring,
    store::{
        Timestamp,
        audit::{self as store, Read, StoredSeal},
        settings,
    },
};
use meshhook_secrets_core::{
    audit::{Head, RecordsDigest},
    key::AuditKey,
};
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    ops::RangeInclusive,
};

/// Problems that are told in words; further ones are only counted.
const PROBLEMS: usize = 100;

/// What was checked and found.
#[derive(Default)]
pub struct Verified {
    pub seals: i64,
    pub records: i64,
    pub unsealed: i64,
    pub first_seal: Option<i64>,
    pub last_seal: Option<i64>,
    pub sealed_until: Option<Timestamp>,
    pub problems: Vec<String>,
    further: usize,
}

impl Verified {
    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS {
            self.problems.push(text);
        } else {
            self.further += 1;
        }
    }
}

/// Checks the seals from `from` to `to`, or all of them.
pub fn verify(from: Option<i64>, to: Option<i64>) -> Result<Verified> {
    require_whole_log()?;
    // In this order: what the writer had made by then is in the state that is looked at.
    let known = ring::last_seal(server::database(), catalog::installation());
    let _state = LatestState::begin();
    let mut verified = Verified { unsealed: store::count_pending()?, ..Verified::default() };
    let mut keys = Keys(HashMap::new());
    let head = head(&mut keys, &mut verified)?;
    for bound in [from, to].into_iter().flatten() {
        if store::seals(bound, bound, 1)?.is_empty() {
            return Err(Error::new("PT404", "seal not found")
                .detail("There is no audit seal with this id.")
                .hint("meshhook_secrets.audit_verify() tells the first and the last one."));
        }
    }
    let range = from.unwrap_or(1)..=to.unwrap_or(i64::MAX);
    let expected = match (from, &head) {
        (None, Some(head)) => Some((head.anchor_id, head.anchor_mac)),
        (None, None) => Some((0, [0; 32])),
        (Some(_), _) => None,
    };
    let last = chain(range.clone(), expected, head.as_ref(), &mut keys, &mut verified)?;
    if to.is_none() && known > head.as_ref().map_or(0, |head| head.seal_id) {
        verified.problem(format!("an older state was put back: seal {known} was the last"));
    }
    if to.is_none() {
        let ends = |head: &Head| match &last {
            Some(last) => last.seal.seal_id == head.seal_id && last.mac == head.seal_mac,
            None => head.seal_id == head.anchor_id,
        };
        match &head {
            Some(head) if !ends(head) => {
                verified.problem(format!(
                    "seals are missing at the end: {} was the last",
                    head.seal_id
                ));
            }
            None if last.is_some() || audit_keys::exist()? => {
                verified.problem(String::from("the head of the seals is missing"));
            }
            _ => {}
        }
    }
    if verified.further > 0 {
        let further = format!("{} further problems", verified.further);
        verified.problems.push(further);
    }
    if from.is_none() && to.is_none() && verified.problems.is_empty() {
        settings::remember("last_audit_verify")?;
    }
    Ok(verified)
}

fn head(keys: &mut Keys, verified: &mut Verified) -> Result<Option<Head>> {
    let Some((head, mac)) = store::head(false)? else {
        return Ok(None);
    };
    match keys.get(head.key_version)? {
        Some(key) if key.verify(&head, &mac).is_ok() => Ok(Some(head)),
        _ => {
            verified.problem(String::from("the head of the seals does not authenticate"));
            Ok(Some(head))
        }
    }
}

/// Checks seal after seal, and returns the last.
fn chain(
    range: RangeInclusive<i64>,
    mut expected: Option<(i64, [u8; 32])>,
    head: Option<&Head>,
    keys: &mut Keys,
    verified: &mut Verified,
) -> Result<Option<StoredSeal>> {
    const PAGE: i64 = 1000;
    let mut last: Option<StoredSeal> = None;
    let mut records = Records::new(match range.start() {
        1 => i64::MIN,
        start => store::seals(*start, *start, 1)?.first().map_or(*start, |it| it.seal.from_id) - 1,
    });
    let mut next = *range.start();
    loop {
        let page = store::seals(next, *range.end(), PAGE)?;
        let full = page.len() as i64 == PAGE;
        for stored in page {
            let seal = &stored.seal;
            let id = seal.seal_id;
            if let Some((previous_id, previous_mac)) = expected
                && (seal.previous_id, seal.previous_mac) != (previous_id, previous_mac)
            {
                verified.problem(match (previous_id, seal.previous_id) {
                    (_, 0) => format!("a new chain begins at seal {id}"),
                    (found, wanted) if found != wanted => {
                        format!("seal {wanted} before seal {id} is missing")
                    }
                    _ => format!("seal {id} does not follow the seal before it"),
                });
            }
            let authentic = match keys.get(seal.key_version)? {
                Some(key) => key.verify(seal, &stored.mac).is_ok(),
                None => false,
            };
            if !authentic {
                verified.problem(format!("seal {id} does not authenticate"));
            }
            let pruned =
                head.and_then(|head| head.pruned_before).is_some_and(|before| seal.month < before)
                    && head.is_some_and(|head| id <= head.pruned_seal);
            check_records(&stored, pruned, &mut records, verified)?;
            verified.seals += 1;
            verified.first_seal.get_or_insert(id);
            verified.last_seal = Some(id);
            verified.sealed_until = Some(seal.sealed_at);
            let mac = stored.mac.as_slice().try_into().unwrap_or_default();
            expected = Some((id, mac));
            last = Some(stored);
        }
        match &last {
            Some(last) if full => next = last.seal.seal_id + 1,
            _ => break,
        }
    }
    if *range.end() == i64::MAX {
        while let Some(stray) = records.next(i64::MAX)? {
            verified.problem(format!("record {} has no seal", stray.id));
        }
    }
    Ok(last)
}

/// Checks the records of a seal; whatever lies between the seals was put there by somebody else.
fn check_records(
    stored: &StoredSeal,
    pruned: bool,
    records: &mut Records,
    verified: &mut Verified,
) -> Result<()> {
    let seal = &stored.seal;
    let mut digest = RecordsDigest::default();
    let mut count = 0;
    let mut reports = Vec::new();
    while let Some(Read { id, record }) = records.next(seal.seal_id)? {
        if id < seal.from_id {
            verified.problem(format!("record {id} has no seal"));
            continue;
        }
        count += 1;
        let Some(record) = record else {
            verified.problem(format!("record {id} cannot be read"));
            continue;
        };
        digest.add(id, &record);
        if record.action == TAMPERED && record.actor == "system" {
            reports.push(format!("record {id}: {}", record.detail.unwrap_or_default()));
        }
    }
    // What the writer found stays a problem until it is pruned.
    reports.into_iter().for_each(|report| verified.problem(report));
    verified.records += i64::from(count);
    if pruned && count == 0 {
        return Ok(());
    }
    if count != seal.records {
        verified.problem(format!(
            "seal {} covers {} records, {count} are there",
            seal.seal_id, seal.records
        ));
    } else if digest.finish() != seal.digest {
        verified.problem(format!("records under seal {} were changed", seal.seal_id));
    }
    Ok(())
}

/// The records in the order of their ids, read page by page.
struct Records {
    after: i64,
    page: VecDeque<Read>,
    last: i64,
}

impl Records {
    fn new(after: i64) -> Self {
        Self { after, page: VecDeque::new(), last: i64::MIN }
    }

    /// The next record up to `to`.
    fn next(&mut self, to: i64) -> Result<Option<Read>> {
        const PAGE: i64 = 5000;
        if self.page.is_empty() && self.last < to {
            let page = store::after(self.after, i64::MAX, PAGE)?;
            self.last = if (page.len() as i64) < PAGE {
                i64::MAX
            } else {
                page.last().map_or(i64::MAX, |stored| stored.id)
            };
            self.after = page.last().map_or(self.after, |stored| stored.id);
            self.page = page.into();
            server::check_for_interrupts();
        }
        match self.page.front() {
            Some(stored) if stored.id <= to => Ok(self.page.pop_front()),
            _ => Ok(None),
        }
    }
}

/// The versions of the audit key, each fetched once; `None`: it is gone, or does not authenticate.
struct Keys(HashMap<i32, Option<AuditKey>>);

impl Keys {
    fn get(&mut self, version: i32) -> Result<Option<&AuditKey>> {
        let key = match self.0.entry(version) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(match audit_keys::of(version) {
                Ok(key) => Some(key),
                Err(error) if error.is_corrupted() => None,
                Err(error) => return Err(error),
            }),
        };
        Ok(key.as_ref())
    }
}
