//! What leaves an audit record, and how safe it is before the caller gets an answer.
//!
//! Every function of ours runs inside [`recorded`]. A change writes its record in its own transaction;
//! everything else, and every failure, goes through the ring in shared memory to the database's writer
//! ([`writer`]), so that it survives a ROLLBACK, an ERROR, and the end of the process.

pub mod keys;
pub mod prune;
pub mod search;
pub mod verify;
pub mod writer;

use crate::{
    error::{Error, Result},
    gucs,
    pg::{raise, server, session, user},
    shmem::{
        audit::{self as ring, Place},
        counters::{self, Count},
        keyring,
    },
    store::{Uuid, audit as store},
};
use meshhook_secrets_core::audit::{Outcome, Record};
use serde_json::{Map, Value};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// What a function does, which decides what its record must survive before the caller gets an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reveals values: durable before the plaintext, or in the ring, as `audit_mode` says.
    Reveal,
    /// Looks at something that is no value: in the ring.
    Look,
    /// Asks for nothing but whether it works, again and again: only refusals are recorded.
    Probe,
    /// Changes tables: in the same transaction.
    Change,
    /// Must work whatever happens to the record: sealing and unsealing the server.
    Control,
}

/// One of several things that a call did.
pub struct Item {
    pub name: String,
    pub secret_id: Option<Uuid>,
    pub version: Option<i32>,
    pub outcome: Outcome,
    pub sqlstate: Option<&'static str>,
}

/// A call while it runs: it fills in what it finds out.
pub struct Event {
    record: Record,
    /// If there are any, each makes a record of its own.
    pub items: Vec<Item>,
}

impl Event {
    fn begin(action: &str) -> Self {
        let mut record = Record::new(server::now(), action, Outcome::Ok, &session::actor());
        if !session::is_system() {
            record.actor_role = Some(user::current_name());
            record.claimed_sub = session::claim("sub");
            record.claimed_role = session::claim("role");
            record.client_address = session::client_address();
            record.application_name = session::application_name();
            record.request_id = session::request_id();
        }
        Self { record, items: Vec::new() }
    }

    /// The project that it is about.
    pub fn project(&mut self, project: &Uuid) {
        self.record.project_id = Some(*project);
    }

    /// The name of the secret that it is about, as given: only what can be a name is recorded.
    pub fn name(&mut self, name: &str) {
        if meshhook_secrets_core::name::SecretName::parse(name).is_ok() {
            self.record.name = Some(name.to_owned());
        }
    }

    /// The secret that was found.
    pub fn secret(&mut self, id: &Uuid, version: i32) {
        self.record.secret_id = Some(*id);
        self.record.version = Some(version);
    }

    /// What it was for, as the caller says.
    pub fn purpose(&mut self, purpose: Option<&str>) {
        self.record.purpose = purpose.map(str::to_owned);
    }

    /// The KEK that it is about.
    pub fn kek(&mut self, kek_id: i32) {
        self.record.kek_id = Some(kek_id);
    }

    /// It is a failure that is told of, though the transaction goes on.
    pub fn failed(&mut self) {
        self.record.outcome = Outcome::Error;
    }

    /// What else is worth knowing.
    pub fn detail(&mut self, detail: impl Into<String>) {
        self.record.detail = Some(detail.into());
    }

    /// How many values it handed out.
    fn values(&self) -> u64 {
        match self.items.len() {
            0 => u64::from(self.record.secret_id.is_some()),
            _ => self.items.iter().filter(|item| item.outcome == Outcome::Ok).count() as u64,
        }
    }

    fn records(mut self) -> Vec<Record> {
        self.record.transaction_id = session::transaction_id();
        if self.items.is_empty() {
            return vec![self.record.fit()];
        }
        let one = |item: Item| {
            let mut record = self.record.clone();
            record.name = Some(item.name);
            record.secret_id = item.secret_id;
            record.version = item.version;
            record.outcome = item.outcome;
            record.sqlstate = item.sqlstate.map(str::to_owned);
            record.fit()
        };
        std::mem::take(&mut self.items).into_iter().map(one).collect()
    }
}

/// Runs a function of ours and records how it went. If that cannot be done, the function is refused.
pub fn recorded<T>(
    kind: Kind,
    action: &str,
    work: impl FnOnce(&mut Event) -> Result<T>,
) -> Result<T> {
    keyring::require_preloaded()?;
    let mut event = Event::begin(action);
    match catch_unwind(AssertUnwindSafe(|| work(&mut event))) {
        Ok(Ok(value)) => {
            let values = event.values();
            if gucs::audit() {
                succeeded(kind, event).inspect_err(|error| count_failure(&error.sqlstate()))?;
            }
            match kind {
                Kind::Reveal => counters::count(Count::Get, values),
                Kind::Change if WRITES.contains(&action) => counters::count(Count::Put, 1),
                _ => {}
            }
            Ok(value)
        }
        Ok(Err(error)) => {
            failed(true, event.record, &error.sqlstate());
            Err(error)
        }
        Err(payload) => {
            failed(true, event.record, &raise::sqlstate_of_panic(payload.as_ref()));
            resume_unwind(payload)
        }
    }
}

/// Records something that the system did in this transaction.
pub fn note(action: &str, fill: impl FnOnce(&mut Event)) -> Result<()> {
    if !gucs::audit() {
        return Ok(());
    }
    let mut event = Event::begin(action);
    fill(&mut event);
    in_transaction(event.records())
}

/// Something that is no function of ours was refused.
pub fn refused(action: &str, sqlstate: &str) {
    failed(true, Event::begin(action).record, sqlstate);
}

/// PostgreSQL itself refused a call: no catalog can be asked any more.
pub fn refused_by_server(action: &str, role: Option<String>) {
    // Processes without a database log too.
    if !ring::exists() || server::database() == 0 {
        return;
    }
    let mut record = Record::new(server::now(), action, Outcome::Denied, &session::actor());
    record.actor_role = role;
    record.claimed_sub = session::claim("sub");
    record.claimed_role = session::claim("role");
    record.client_address = session::client_address();
    record.application_name = session::application_name();
    record.request_id = session::request_id();
    // Anybody can make an error that looks so, in any database: no queue is made for it.
    failed(false, record, "42501");
}

fn succeeded(kind: Kind, event: Event) -> Result<()> {
    let records = event.records();
    match kind {
        Kind::Probe => Ok(()),
        Kind::Change => in_transaction(records),
        _ if server::in_recovery() => records.iter().try_for_each(|record| {
            if raise::log_for_sure(&line(record)) { Ok(()) } else { Err(not_logged()) }
        }),
        Kind::Control => {
            for record in records {
                let bytes = record.encode();
                if ring::push(server::database(), &bytes, false).is_none() {
                    raise::log_for_sure(&line(&record));
                }
            }
            Ok(())
        }
        Kind::Look => in_ring(&records, false),
        Kind::Reveal => in_ring(&records, gucs::audit_waits()),
    }
}

/// Writes records in the running transaction, and has the writer seal them once it is committed.
fn in_transaction(records: Vec<Record>) -> Result<()> {
    for record in records {
        store::insert_pending(&record.encode(), None)?;
    }
    server::at_commit(&LOOK, || ring::look(server::database()));
    Ok(())
}

static LOOK: server::AtCommit = server::AtCommit::unasked();

/// Pushes records, and waits until they are committed, or at least until somebody is there who will.
fn in_ring(records: &[Record], durable: bool) -> Result<()> {
    let deadline = server::uptime() + gucs::audit_timeout();
    let mut last = None;
    for record in records {
        last = Some(push(&record.encode(), durable, deadline)?);
    }
    let Some(place) = last else {
        return Ok(());
    };
    if durable {
        if ring::wait_until_durable(place, deadline)? {
            return Ok(());
        }
        return Err(not_written("The audit writer has not committed the record in time."));
    }
    if ring::wait_until_attended(place, deadline)? {
        return Ok(());
    }
    Err(not_written("The audit writer of this database does not run."))
}

fn push(record: &[u8], urgent: bool, deadline: i64) -> Result<Place> {
    let database = server::database();
    loop {
        if let Some(place) = ring::push(database, record, urgent) {
            return Ok(place);
        }
        if !ring::wait_for_room(database, deadline)? {
            return Err(not_written("The queue of audit records is full."));
        }
    }
}

/// The functions that store a value.
const WRITES: [&str; 4] = ["secret_put", "secret_put_bytes", "secret_generate", "secret_rollback"];

/// Counts what is refused for lack of rights, and what fails by no fault of the caller.
fn count_failure(sqlstate: &str) {
    const OURS: [&str; 5] = ["XX", "PT503", "53", "55", "58"];
    if sqlstate == "42501" {
        counters::count(Count::Denial, 1);
        counters::failed(sqlstate);
    } else if OURS.iter().any(|class| sqlstate.starts_with(class)) {
        counters::count(Count::Failure, 1);
        counters::failed(sqlstate);
    }
}

/// Records a failure. The caller gets the failure itself as the answer, so this waits for nobody.
fn failed(begin: bool, mut record: Record, sqlstate: &str) {
    count_failure(sqlstate);
    if !gucs::audit() {
        return;
    }
    record.outcome = Outcome::of_sqlstate(sqlstate);
    record.sqlstate = Some(sqlstate.to_owned());
    let record = record.fit();
    let (key, bytes, database) = (likeness(&record), record.encode(), server::database());
    let logged = server::in_recovery() || !ring::exists();
    if logged || !ring::push_failure(database, key, &bytes, begin) {
        raise::log_for_sure(&line(&record));
    }
}

/// Two failures of the same likeness are repeats. Whoever tries one name after the other in a project
/// that is closed to him repeats himself.
fn likeness(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    record.actor.hash(&mut hasher);
    record.actor_role.hash(&mut hasher);
    record.claimed_sub.hash(&mut hasher);
    record.action.hash(&mut hasher);
    record.sqlstate.hash(&mut hasher);
    record.project_id.hash(&mut hasher);
    record.kek_id.hash(&mut hasher);
    if record.outcome != Outcome::Denied {
        record.name.hash(&mut hasher);
    }
    hasher.finish()
}

/// A record as a line of the server log, where it cannot be written to a table.
pub fn line(record: &Record) -> String {
    format!("meshhook_secrets audit: {}", Value::Object(json(record)))
}

/// A record as JSON; what is not known is left out.
pub fn json(record: &Record) -> Map<String, Value> {
    let uuid = |id: Option<Uuid>| id.map(|id| pgrx::Uuid::from_bytes(id).to_string());
    let fields = [
        ("time", Some(Value::from(server::iso(record.time)))),
        ("action", Some(Value::from(record.action.as_str()))),
        ("outcome", Some(Value::from(record.outcome.as_str()))),
        ("sqlstate", record.sqlstate.clone().map(Value::from)),
        ("project_id", uuid(record.project_id).map(Value::from)),
        ("secret_id", uuid(record.secret_id).map(Value::from)),
        ("name", record.name.clone().map(Value::from)),
        ("version", record.version.map(Value::from)),
        ("kek_id", record.kek_id.map(Value::from)),
        ("purpose", record.purpose.clone().map(Value::from)),
        ("detail", record.detail.clone().map(Value::from)),
        ("actor", Some(Value::from(record.actor.as_str()))),
        ("actor_role", record.actor_role.clone().map(Value::from)),
        ("claimed_sub", record.claimed_sub.clone().map(Value::from)),
        ("claimed_role", record.claimed_role.clone().map(Value::from)),
        ("client_address", record.client_address.clone().map(Value::from)),
        ("application_name", record.application_name.clone().map(Value::from)),
        ("request_id", record.request_id.clone().map(Value::from)),
        ("times", (record.times > 1).then(|| Value::from(record.times))),
    ];
    let known = |(name, value): (&str, Option<Value>)| Some((name.to_owned(), value?));
    fields.into_iter().filter_map(known).collect()
}

fn not_written(cause: &'static str) -> Error {
    Error::new("PT503", "audit record cannot be written").detail(cause).hint(
        "What cannot be recorded is refused. Look at the server log for the audit writer's error (disk full, lock on the audit tables, no free background worker) and at meshhook_secrets.doctor(); it recovers by itself.",
    )
}

fn not_logged() -> Error {
    Error::new("PT503", "audit record cannot be written")
        .detail("On a standby records go to the server log, and log_min_messages suppresses them.")
        .hint("Set log_min_messages to log or lower.")
}
