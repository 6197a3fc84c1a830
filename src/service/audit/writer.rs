//! The writer's work: takes what waits, gives it ids, seals it, and writes records, seals and head in
//! one transaction. While the server is sealed, records are written without a seal to `audit_pending`, and
//! taken over later.

use super::keys::{self, Versioned};
use crate::{
    error::{Error, Result},
    pg::{catalog, raise, scan, server},
    shmem::{
        audit::{self as ring, Event, Waiting},
        keyring,
    },
    store::{
        Timestamp,
        audit::{self as store, Stored},
        jobs,
    },
};
use meshhook_secrets_core::audit::{Head, Outcome, Record, RecordsDigest, Seal};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};

/// Records in one transaction at most, from each of the two sources.
const BATCH: u64 = 1000;

/// The action of what the writer finds wrong with the log itself.
pub const TAMPERED: &str = "audit_tampered";

/// What of the ring is done once the transaction is committed.
pub struct Done {
    pub position: u64,
    pub last_seal: Option<i64>,
    /// The last seal, for the server log: logs that are shipped elsewhere bear witness of the chain.
    pub witness: Option<String>,
    /// There is probably more.
    pub more: bool,
    /// Somebody may be waiting.
    pub records: usize,
}

/// What a writer remembers from one batch to the next.
#[derive(Default)]
pub struct Memory {
    /// Up to where the tables have the ring; known once it was looked up.
    resumed: bool,
    /// That records cannot be sealed was logged.
    complained: bool,
    /// Up to when events of the server were told of.
    told: Option<Timestamp>,
    /// The month of the last record, from and to.
    span: (Timestamp, Timestamp),
    /// Months that have a partition.
    months: HashSet<Timestamp>,
}

/// Writes a batch; to be called in a transaction of its own.
pub fn batch(queue: usize, memory: &mut Memory, look: bool) -> Result<Done> {
    let mut waiting = ring::waiting(queue, BATCH, catalog::installation());
    // Now and then without being asked: a prepared transaction is committed by somebody else.
    waiting.asked |= look || !memory.resumed;
    if !memory.resumed {
        skip_written(queue, &mut waiting)?;
        memory.resumed = true;
    }
    tell_of_server(memory)?;
    if keyring::status()?.sealed { set_aside(waiting) } else { seal(queue, waiting, memory) }
}

/// A writer before this one may have ended between its commit and saying so.
fn skip_written(queue: usize, waiting: &mut Waiting) -> Result<()> {
    let written = store::ring_position(waiting.ring)?.max(0) as u64;
    let first = waiting.position - waiting.records.len() as u64;
    if written > first {
        ring::complete(queue, written, None, true);
        *waiting = ring::waiting(queue, BATCH, catalog::installation());
    }
    Ok(())
}

/// Writes records without a seal.
fn set_aside(waiting: Waiting) -> Result<Done> {
    notify(waiting.records.iter().map(|bytes| decode(bytes)).collect::<Vec<_>>().iter())?;
    let first = waiting.position - waiting.records.len() as u64;
    for (at, record) in waiting.records.iter().enumerate() {
        store::insert_pending(record, Some((waiting.ring, (first + at as u64 + 1) as i64)))?;
    }
    Ok(Done {
        position: waiting.position,
        last_seal: None,
        witness: None,
        more: waiting.records.len() as u64 == BATCH,
        records: waiting.records.len(),
    })
}

fn seal(queue: usize, waiting: Waiting, memory: &mut Memory) -> Result<Done> {
    let taken = waiting.records.len();
    if is_idle(&waiting)? {
        let position = waiting.position;
        return Ok(Done { position, last_seal: None, witness: None, more: false, records: 0 });
    }
    // The log before the head, as audit_prune locks them.
    scan::lock_for_writing("audit_log")?;
    // All that can be refused is asked for before anything is taken.
    let ready =
        keys::current().and_then(|key| Ok((trusted(store::head(true)?, &waiting, &key)?, key)));
    let ((mut head, problem), key) = match ready {
        Err(Error::Refused(refusal)) => {
            if !std::mem::replace(&mut memory.complained, true) {
                let cause = refusal.detail.as_deref().unwrap_or(refusal.message);
                raise::log(
                    pgrx::PgLogLevel::WARNING,
                    &format!("meshhook_secrets: audit records cannot be sealed: {cause}"),
                    Some(
                        "They wait in meshhook_secrets.audit_pending; see meshhook_secrets.root_key_verify().",
                    ),
                );
            }
            return set_aside(waiting);
        }
        other => other?,
    };
    // Not at every batch of reveals: after many changes there are many dead rows to go through.
    let pending = if waiting.asked { store::take_pending(BATCH as i64)? } else { Vec::new() };
    let more = pending.len() as u64 == BATCH || waiting.records.len() as u64 == BATCH;
    // What came through the ring while the server was sealed was told of then.
    let (told, new): (Vec<_>, Vec<_>) = pending.into_iter().partition(|pending| pending.from_ring);
    let new = new.iter().map(|pending| &pending.record).chain(&waiting.records);
    let mut records: Vec<Record> = new.map(|bytes| decode(bytes)).collect();
    notify(records.iter())?;
    records.extend(told.iter().map(|pending| decode(&pending.record)));
    let events = ring::server_events(head.server_event.unwrap_or(i64::MIN));
    records.extend(events.iter().map(system_record));
    let problem = problem.map(|problem| {
        let mut record = Record::new(server::now(), TAMPERED, Outcome::Error, "system");
        record.detail = Some(problem);
        record
    });
    notify(problem.iter())?;
    records.extend(problem);
    let done =
        Done { position: waiting.position, last_seal: None, witness: None, more, records: taken };
    if records.is_empty() && !key.is_new {
        return Ok(done);
    }
    head.server_event = events.last().map(|event| event.time).or(head.server_event);
    chain(records, &waiting, &key, &mut head, memory)?;
    head.key_version = key.key_version;
    store::set_head(&head, &key.key.authenticate(&head))?;
    let witness = ring::is_witness_due(queue, server::now()).then(|| {
        let mac: String = head.seal_mac.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "database": server::database_name(), "seal_id": head.seal_id, "mac": mac })
            .to_string()
    });
    Ok(Done { last_seal: Some(head.seal_id), witness, ..done })
}

/// Whether there is nothing to write: then nothing is locked either, and no commit reaches the disk.
fn is_idle(waiting: &Waiting) -> Result<bool> {
    if !waiting.records.is_empty() || (waiting.asked && store::has_pending()?) {
        return Ok(false);
    }
    let head = store::head(false)?;
    let recorded = head.and_then(|(head, _)| head.server_event).unwrap_or(i64::MIN);
    Ok(ring::server_events(recorded).is_empty())
}

/// The head as it is to be continued. If it or the last seal was tampered with, the chain goes on where
/// the best witness says that it was, so that the gap shows.
fn trusted(
    known: Option<(Head, Vec<u8>)>,
    waiting: &Waiting,
    current: &Versioned,
) -> Result<(Head, Option<String>)> {
    let last = store::last_seal()?;
    let last_id = last.as_ref().map_or(0, |last| last.seal.seal_id);
    let Some((head, mac)) = known else {
        let Some(last) = last else {
            // Where there is a key, there was a head.
            let was = Head { seal_id: waiting.last_seal, ..Head::default() };
            let emptied = !current.is_new || waiting.last_seal > 0;
            return Ok((was, emptied.then(|| String::from("the audit log was emptied"))));
        };
        let head = Head {
            seal_id: last.seal.seal_id,
            seal_mac: last.mac.try_into().unwrap_or_default(),
            ..Head::default()
        };
        return Ok((head, Some(String::from("the head of the audit seals was removed"))));
    };
    let last_mac = last.and_then(|last| last.mac.try_into().ok()).unwrap_or_default();
    let verified = match head.key_version == current.key_version {
        true => current.key.verify(&head, &mac).map_err(Error::from),
        false => keys::of(head.key_version).and_then(|key| Ok(key.verify(&head, &mac)?)),
    };
    match verified {
        Ok(()) => {}
        Err(error) if error.is_corrupted() => {
            // Nothing of it is taken over.
            let head = Head { seal_id: last_id, seal_mac: last_mac, ..Head::default() };
            return Ok((head, Some(String::from("the head of the audit seals was changed"))));
        }
        Err(error) => return Err(error),
    }
    if waiting.last_seal > head.seal_id {
        let problem = format!(
            "an older state of the audit log was put back: seal {} was the last, now it is {}",
            waiting.last_seal, head.seal_id
        );
        let head = Head { seal_id: waiting.last_seal, seal_mac: [0; 32], ..head };
        return Ok((head, Some(problem)));
    }
    let expected = if last_id == 0 { head.anchor_id } else { last_id };
    let problem = if expected != head.seal_id {
        Some(format!("audit seal {} is the last instead of {}", expected, head.seal_id))
    } else if last_id != 0 && last_mac != head.seal_mac {
        Some(format!("audit seal {last_id} was changed"))
    } else {
        None
    };
    Ok((head, problem))
}

/// Writes records and their seals, one for each month, and moves the head on.
fn chain(
    records: Vec<Record>,
    waiting: &Waiting,
    key: &Versioned,
    head: &mut Head,
    memory: &mut Memory,
) -> Result<()> {
    let mut months: BTreeMap<Timestamp, Vec<Record>> = BTreeMap::new();
    for record in records {
        if !(memory.span.0..memory.span.1).contains(&record.time) {
            memory.span = store::month(record.time)?;
        }
        months.entry(memory.span.0).or_default().push(record);
    }
    let now = server::now();
    let mut next = now.max(head.seal_id + 1);
    for (month, mut records) in months {
        if memory.months.insert(month) {
            store::make_partition(month)?;
            let (_, following) = store::month(now)?;
            store::make_partition(following)?;
        }
        records.sort_by_key(|record| record.time);
        let mut digest = RecordsDigest::default();
        let from_id = next;
        let mut stored = Vec::with_capacity(records.len());
        for record in records {
            digest.add(next, &record);
            stored.push(Stored { id: next, record });
            next += 1;
        }
        store::insert(&stored)?;
        let seal = Seal {
            seal_id: next - 1,
            previous_id: head.seal_id,
            previous_mac: head.seal_mac,
            from_id,
            records: stored.len() as i32,
            digest: digest.finish(),
            month,
            key_version: key.key_version,
            ring: (waiting.ring, waiting.position as i64),
            sealed_at: now,
        };
        let mac = key.key.authenticate(&seal);
        store::insert_seal(&seal, &mac)?;
        head.seal_id = seal.seal_id;
        head.seal_mac = mac;
    }
    Ok(())
}

/// A record that waits in a table can have been changed there before it was sealed.
fn decode(bytes: &[u8]) -> Record {
    Record::decode(bytes).unwrap_or_else(|_| {
        let mut record = Record::new(server::now(), TAMPERED, Outcome::Error, "system");
        record.detail = Some(String::from("a record that waited for its seal was changed"));
        record
    })
}

fn system_record(event: &Event) -> Record {
    let outcome = if event.failed { Outcome::Error } else { Outcome::Ok };
    let mut record = Record::new(event.time, &event.action.get(), outcome, "system");
    let detail = event.detail.get();
    record.detail = (!detail.is_empty()).then_some(detail);
    record.fit()
}

/// Actions that somebody should hear of at once, beside every denial and failure.
const CRITICAL: [&str; 7] = [
    "seal",
    "unseal",
    "audit_prune",
    TAMPERED,
    "kek_mark_compromised",
    "kek_destroy",
    "root_key_rotate",
];

/// Tells whoever listens to the channel `meshhook_secrets` what is critical. Everybody who can connect
/// can listen: no names.
fn notify<'a>(records: impl Iterator<Item = &'a Record>) -> Result<()> {
    /// A flood of denials must not become a flood of notifications.
    const MOST: usize = 20;
    let critical = |record: &&Record| {
        matches!(record.outcome, Outcome::Denied | Outcome::Error)
            || CRITICAL.contains(&record.action.as_str())
    };
    for record in records.filter(critical).take(MOST) {
        let project = record.project_id.map(|id| pgrx::Uuid::from_bytes(id).to_string());
        jobs::notify(&json!({
            "event": "audit", "action": record.action, "outcome": record.outcome.as_str(),
            "project_id": project, "kek_id": record.kek_id
        }))?;
    }
    Ok(())
}

/// Tells of the server as a whole, once while this writer lives.
fn tell_of_server(memory: &mut Memory) -> Result<()> {
    /// What happened longer ago was told by the writer before this one.
    const AGO: i64 = 5_000_000;
    let since = *memory.told.get_or_insert_with(|| server::now() - AGO);
    for event in ring::server_events(since) {
        memory.told = Some(event.time);
        let event = match event.action.get().as_str() {
            "sealed" => json!({ "event": "sealed" }),
            _ => json!({ "event": "unsealed" }),
        };
        jobs::notify(&event)?;
    }
    Ok(())
}

/// 42501 unless the caller is somebody to whom row-level security does not apply.
pub fn require_whole_log() -> Result<()> {
    if crate::pg::user::bypasses_rls() {
        return Ok(());
    }
    Err(Error::new("42501", "permission denied for the audit log")
        .detail("The whole log is for roles to which row-level security does not apply.")
        .hint("Use a role with BYPASSRLS, or audit_search for the records of your projects."))
}
