//! The server and the model side by side: every call is made, and what it answers is judged.

use std::collections::{BTreeMap, VecDeque};
use std::thread::panicking;

use postgres::types::ToSql;
use postgres::{Client, Row};
use support::{Cluster, Database, eventually};
use uuid::Uuid;

use crate::callers::{Caller, WITNESS};
use crate::clock::Clock;
use crate::expect::{Outcome, Question};
use crate::ledger::{Ledger, records};
use crate::model::{Effect, Kek, Key, Micros, Root, State, When};
use crate::operations::{Answer, Op, Place, Step};
use crate::random::Random;
use crate::unanswered::Unanswered;

/// A session was cut off: nothing is known about the server until somebody has looked.
#[derive(Debug)]
pub struct Cut;

/// A connection, and its transaction if one is open.
pub struct Session {
    pub caller: Caller,
    pub client: Option<Client>,
    pub pid: i32,
    pub transaction: Option<Transaction>,
}

/// What a transaction has done so far.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub effects: Vec<Effect>,
    /// The records that come with it, by request id.
    pub records: Vec<(String, Vec<String>)>,
    /// How much of both there was at the savepoint.
    pub savepoint: Option<(usize, usize)>,
}

pub struct World<'c> {
    pub cluster: &'c Cluster,
    pub db: &'c Database<'c>,
    pub random: Random,
    pub clock: Clock,
    pub state: State,
    pub sessions: Vec<Session>,
    pub ledger: Ledger,
    /// Calls and commits that got no answer.
    pub unanswered: Vec<Unanswered>,
    pub users: Vec<Uuid>,
    /// Projects that were deleted when they had a data key.
    pub deleted: Vec<Uuid>,
    /// The lines of the root key file, the current one first.
    pub root_keys: Vec<String>,
    /// Processes that were killed.
    pub killed: Vec<i32>,
    /// How often what was done.
    pub counts: BTreeMap<String, usize>,
    pub history: History,
    requests: usize,
}

/// The last things that were done; told when a test fails.
pub struct History {
    pub title: String,
    lines: VecDeque<String>,
}

impl History {
    pub fn note(&mut self, line: String) {
        const KEPT: usize = 60;
        self.lines.push_back(line.chars().take(400).collect());
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if panicking() {
            eprintln!("{}; the last steps were:", self.title);
            self.lines.iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl<'c> World<'c> {
    pub fn new(db: &'c Database<'c>, clock: Clock, seed: u64, callers: Vec<Caller>) -> Self {
        let session = |caller| Session { caller, client: None, pid: 0, transaction: None };
        let users = callers.iter().filter_map(Caller::user).collect();
        let history = History { title: format!("CHAOS_SEED={seed}"), lines: VecDeque::new() };
        let mut world = Self {
            cluster: db.cluster(),
            db,
            random: Random::new(seed),
            clock,
            state: State {
                projects: BTreeMap::new(),
                secrets: BTreeMap::new(),
                keks: BTreeMap::new(),
                root: Root::Right,
                sealed_by_operator: false,
            },
            sessions: callers.into_iter().map(session).collect(),
            ledger: Ledger::default(),
            unanswered: Vec::new(),
            users,
            deleted: Vec::new(),
            root_keys: vec![support::KEY_A.to_owned()],
            killed: Vec::new(),
            counts: BTreeMap::new(),
            history,
            requests: 0,
        };
        world.sync_keks(None).expect("no fault yet");
        world
    }

    /// A connection of our own, whose calls leave no trace in the ledger.
    /// Where a fault strikes just now, it comes a moment later.
    pub fn witness(&self) -> Client {
        let mut client = None;
        eventually("the server lets us in", || {
            client = self.cluster.try_connect(self.db.name(), WITNESS).ok();
            client.is_some()
        });
        client.expect("it let us in")
    }

    /// The one row that the witness gets, once no fault is in the way.
    pub fn testimony(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Row {
        let mut row = None;
        eventually(query, || {
            row = self.witness().query_one(query, parameters).ok();
            row.is_some()
        });
        row.expect("it answered")
    }

    /// What is in tables, unless a fault is in the way.
    pub fn peek(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Cut> {
        let mut client = self.cluster.try_connect(self.db.name(), WITNESS).map_err(|_| Cut)?;
        match client.query(query, parameters) {
            Ok(rows) => Ok(rows),
            Err(error) if was_cut(&error) => Err(Cut),
            Err(error) => self.diverged(&format!("{query}: {error:?}")),
        }
    }

    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// The model and the server differ.
    #[track_caller]
    pub fn diverged(&self, what: &str) -> ! {
        panic!("{}: {what}", self.history.title)
    }

    // --- sessions --------------------------------------------------------------------------------

    /// The connection of a session, made anew if need be.
    pub fn client(&mut self, who: usize) -> Result<&mut Client, Cut> {
        let db = self.db;
        let session = &mut self.sessions[who];
        if session.client.as_ref().is_some_and(Client::is_closed) {
            session.client = None;
            session.transaction = None;
        }
        if session.client.is_none() {
            let mut client = session.caller.connect(db).map_err(|_| Cut)?;
            session.pid = match client.query_one("SELECT pg_backend_pid()", &[]) {
                Ok(row) => row.get(0),
                Err(_) => return Err(Cut),
            };
            session.client = Some(client);
        }
        Ok(session.client.as_mut().expect("just made"))
    }

    /// A session has ended, and its transaction with it.
    pub fn end(&mut self, who: usize) {
        self.sessions[who].client = None;
        self.sessions[who].transaction = None;
    }

    /// What a session sees.
    pub fn view(&self, who: usize) -> State {
        let transaction = self.sessions[who].transaction.as_ref();
        self.state.with(transaction.iter().flat_map(|it| &it.effects))
    }

    /// Whether another session may hold locks.
    fn others_hold_locks(&self, who: usize) -> bool {
        let mut others = self.sessions.iter().enumerate().filter(|(index, _)| *index != who);
        others.any(|(_, session)| session.transaction.is_some())
    }

    fn other_has_changed(&self, who: usize, place: &Place) -> bool {
        let key: Key = (place.project, place.name.clone());
        let has = |effect: &Effect| matches!(effect, Effect::Secret(it, _) if *it == key);
        let others = self.sessions.iter().enumerate().filter(|(index, _)| *index != who);
        let mut open = others.filter_map(|(_, session)| session.transaction.as_ref());
        open.any(|transaction| transaction.effects.iter().any(has))
    }

    // --- transactions ------------------------------------------------------------------------------

    fn run(&mut self, who: usize, statement: &str) -> Result<(), Cut> {
        let done = self.client(who)?.batch_execute(statement);
        if let Err(error) = done {
            if was_cut(&error) {
                self.end(who);
                return Err(Cut);
            }
            self.diverged(&format!("{statement}: {error:?}"));
        }
        Ok(())
    }

    pub fn begin(&mut self, who: usize) -> Result<(), Cut> {
        self.note(who, "BEGIN");
        self.run(who, "BEGIN")?;
        self.sessions[who].transaction = Some(Transaction::default());
        Ok(())
    }

    pub fn savepoint(&mut self, who: usize) -> Result<(), Cut> {
        self.note(who, "SAVEPOINT");
        self.run(who, "SAVEPOINT of_chaos")?;
        if let Some(transaction) = &mut self.sessions[who].transaction {
            transaction.savepoint = Some((transaction.effects.len(), transaction.records.len()));
        }
        Ok(())
    }

    pub fn rollback_to_savepoint(&mut self, who: usize) -> Result<(), Cut> {
        self.note(who, "ROLLBACK TO");
        self.run(who, "ROLLBACK TO of_chaos")?;
        if let Some(transaction) = &mut self.sessions[who].transaction
            && let Some((effects, records)) = transaction.savepoint
        {
            transaction.effects.truncate(effects);
            transaction.records.truncate(records);
        }
        Ok(())
    }

    pub fn rollback(&mut self, who: usize) -> Result<(), Cut> {
        self.note(who, "ROLLBACK");
        self.sessions[who].transaction = None;
        self.run(who, "ROLLBACK")
    }

    pub fn commit(&mut self, who: usize) -> Result<(), Cut> {
        self.note(who, "COMMIT");
        let transaction = self.sessions[who].transaction.take().unwrap_or_default();
        if self.run(who, "COMMIT").is_err() {
            self.unanswered.push(Unanswered::Commit(transaction));
            return Err(Cut);
        }
        self.committed(transaction);
        Ok(())
    }

    pub fn committed(&mut self, transaction: Transaction) {
        self.state = self.state.with(&transaction.effects);
        for (request, records) in transaction.records {
            self.ledger.succeeded(&request, records);
        }
    }

    // --- calls -------------------------------------------------------------------------------------

    pub fn note(&mut self, who: usize, what: &str) {
        let caller = &self.sessions[who].caller;
        let open = if self.sessions[who].transaction.is_some() { " in transaction" } else { "" };
        self.history.note(format!("{who} {caller:?}{open}: {what}"));
    }

    /// Makes a call and judges its answer.
    pub fn perform(&mut self, who: usize, op: &Op) -> Result<(), Cut> {
        // Somebody else's lock is waited for a moment only; where nobody of ours has one, the workers do,
        // for a moment too.
        const TURNS: usize = 100;
        for _ in 0..TURNS {
            if self.attempt(who, op)? {
                return Ok(());
            }
        }
        self.diverged(&format!("a lock that nobody holds is in the way of {op:?}"))
    }

    /// False if a lock was in the way that nobody of ours can have.
    fn attempt(&mut self, who: usize, op: &Op) -> Result<bool, Cut> {
        self.note(who, &format!("{op:?}"));
        let of_keks = op.action().starts_with("kek_");
        if of_keks {
            self.sync_keks(None)?;
        }
        let request = Ledger::request_id(self.requests);
        self.requests += 1;
        let headers = format!("{{\"x-request-id\": \"{request}\"}}");
        let set = "SELECT set_config('request.headers', $1, false)";
        if let Err(error) = self.client(who)?.query(set, &[&headers]) {
            if !was_cut(&error) {
                self.diverged(&format!("{error:?}"));
            }
            self.end(who);
            return Err(Cut);
        }
        // A call that fails takes the transaction with it, unless there is a savepoint.
        let is_guarded = self.sessions[who].transaction.is_some() && self.random.percent(60);
        if is_guarded {
            self.run(who, "SAVEPOINT guard")?;
        }
        let view = self.view(who);
        let from = self.clock.now();
        let answer = op.call(self.client(who)?);
        let during = When { from, to: self.clock.now() };
        let outcome: Outcome = match answer {
            Ok(answer) => Ok(answer),
            Err(error) if was_cut(&error) => {
                self.note(who, "was cut off");
                let caller = self.sessions[who].caller.clone();
                let in_transaction = self.sessions[who].transaction.is_some();
                self.end(who);
                let op = op.clone();
                let call = Unanswered::Call { request, op, caller, view, during, in_transaction };
                self.unanswered.push(call);
                return Err(Cut);
            }
            Err(error) => match error.as_db_error() {
                Some(error) => Err(error.code().code().to_owned()),
                None => self.diverged(&format!("{error:?}")),
            },
        };
        match &outcome {
            Ok(_) => self.history.note(String::from("   ok")),
            Err(code) => self.history.note(format!("   {code}")),
        }
        let caller = self.sessions[who].caller.clone();
        let locked = op.changes() && matches!(&outcome, Err(code) if code == "55P03");
        let effects =
            if locked { Vec::new() } else { self.judged(op, &caller, &view, during, &outcome) };
        self.count(match &outcome {
            Ok(_) => op.action(),
            Err(code) => code,
        });
        let others_hold_locks = self.others_hold_locks(who);
        match &outcome {
            Ok(answer) => {
                if let Some(place) = op.place()
                    && op.changes_secret()
                    && self.other_has_changed(who, place)
                {
                    self.diverged("it did not wait for the other transaction");
                }
                let records = records(op, &caller, &view, answer);
                match &mut self.sessions[who].transaction {
                    Some(transaction) if op.changes_secret() => {
                        transaction.effects.extend(effects);
                        transaction.records.push((request, records));
                    }
                    _ => {
                        self.state = self.state.with(&effects);
                        self.ledger.succeeded(&request, records);
                    }
                }
                if is_guarded {
                    self.run(who, "RELEASE guard")?;
                }
                self.take_over(op);
            }
            Err(code) => {
                self.ledger.failed(op, &caller, code);
                if is_guarded {
                    self.run(who, "ROLLBACK TO guard; RELEASE guard")?;
                } else if self.sessions[who].transaction.is_some() {
                    self.rollback(who)?;
                    return Ok(true);
                }
            }
        }
        if of_keks && self.sync_keks(outcome.is_ok().then_some(op)).is_err() {
            self.unanswered.push(Unanswered::Keks(op.clone()));
            return Err(Cut);
        }
        Ok(!locked || others_hold_locks)
    }

    /// What the call changed. Time passes while it runs: what it says must be right at some moment of it.
    fn judged(
        &mut self,
        op: &Op,
        caller: &Caller,
        view: &State,
        during: When,
        outcome: &Outcome,
    ) -> Vec<Effect> {
        let times = view.secrets.values().flat_map(|secret| {
            let expiries = secret.versions.values().filter_map(|version| version.expires);
            // Of an expiry that may have come in between, only a span is known.
            let expired = expiries.filter(|at| at.from <= during.to && during.from <= at.to);
            let deleted = secret.deleted.map(|it| it.1).filter(|at| during.holds(*at));
            expired.map(|at| at.to).chain(deleted)
        });
        let mut moments: Vec<Micros> = times.collect();
        moments.extend([during.from, during.to]);
        let mut problem = String::new();
        for now in moments {
            match (Question { view, caller, now, during }).judge(op, outcome) {
                Ok(effects) => return effects,
                Err(text) => problem = text,
            }
        }
        if self.is_dimmed(op, outcome) || self.is_kept(op, outcome) {
            return Vec::new();
        }
        self.diverged(&format!("{caller:?}: {op:?}: {problem}"))
    }

    /// Whether a KEK that is switched off explains that something cannot be opened.
    fn is_dimmed(&mut self, op: &Op, outcome: &Outcome) -> bool {
        let told = match outcome {
            Err(code) => code == "PT503",
            Ok(Answer::Items(items)) => items.iter().any(|item| item.3 == "sealed"),
            Ok(Answer::Rows(_)) => matches!(op, Op::ProjectSealStatus { .. }),
            Ok(_) => false,
        };
        if !told || !self.state.some_kek_is_off() {
            return false;
        }
        let count = "SELECT count(*) FROM meshhook_secrets.data_keys
            JOIN meshhook_secrets.kek_storage k USING (kek_id)
            WHERE k.status = 'disabled' AND ($1::uuid IS NULL OR project_id = $1)";
        // If a fault is in the way, it may be so.
        self.peek(count, &[&op.project()]).map_or(true, |rows| rows[0].get::<_, i64>(0) > 0)
    }

    /// Whether data keys that hang on a KEK, or that a transaction of ours holds, keep it; or whether its
    /// rotation came to its end meanwhile.
    fn is_kept(&mut self, op: &Op, outcome: &Outcome) -> bool {
        let Op::KekDestroy { kek, confirm, .. } = op else { return false };
        let status = self.state.keks.get(kek).map_or("", |kek| kek.status.as_str());
        match outcome {
            Ok(_) => status == "retiring" && *confirm == kek.to_string(),
            Err(code) => {
                code == "PT409"
                    && ["pending", "retired", "disabled", "compromised"].contains(&status)
            }
        }
    }

    /// What a call changed that is not in tables.
    fn take_over(&mut self, op: &Op) {
        match op {
            Op::Seal { project: None } => self.state.sealed_by_operator = true,
            Op::Unseal { project: None } => self.state.sealed_by_operator = false,
            _ => {}
        }
    }

    // --- KEKs --------------------------------------------------------------------------------------

    /// Takes over how the KEKs are, if they can have become so: by themselves, or by what was done.
    pub fn sync_keks(&mut self, done: Option<&Op>) -> Result<(), Cut> {
        let all = "SELECT kek_id, status, destroy_after FROM meshhook_secrets.kek_storage";
        let rows = self.peek(all, &[])?;
        let mut found = BTreeMap::new();
        for row in rows {
            let destroy_after = row.get::<_, Option<_>>(2).map(crate::operations::micros);
            found.insert(row.get(0), Kek { status: row.get(1), destroy_after });
        }
        let before = std::mem::replace(&mut self.state.keks, found.clone());
        if before.is_empty() {
            return Ok(());
        }
        for (id, kek) in &found {
            let was = before.get(id).map_or("", |kek| kek.status.as_str());
            if was != kek.status && !self.may_become(*id, was, &kek.status, done) {
                self.diverged(&format!("KEK {id} was {was} and is {} after {done:?}", kek.status));
            }
        }
        let active = found.values().filter(|kek| kek.status == "active").count();
        if active > 1 || before.keys().any(|id| !found.contains_key(id)) {
            self.diverged(&format!("the KEKs are {found:?}"));
        }
        Ok(())
    }

    fn may_become(&self, id: i32, was: &str, is: &str, done: Option<&Op>) -> bool {
        let itself =
            matches!((was, is), ("retiring", "retired") | ("destroy_scheduled", "destroyed"));
        let by = match done {
            Some(Op::KekGenerate) => (was, is) == ("", "pending"),
            Some(Op::KekRotate) => {
                matches!((was, is), ("" | "pending", "active") | ("active", "retiring" | "retired"))
            }
            Some(Op::KekStep { step, kek }) if *kek == id => match step {
                Step::Disable | Step::CancelDestroy => is == "disabled",
                Step::Enable => ["retiring", "retired"].contains(&is),
                Step::MarkCompromised => is == "compromised",
            },
            Some(Op::KekDestroy { kek, .. }) if *kek == id => {
                ["destroy_scheduled", "destroyed"].contains(&is)
            }
            _ => false,
        };
        itself || by
    }

    // --- coming back ---------------------------------------------------------------------------------

    /// Waits until the server answers again, ends the sessions that were cut off, and finds out what
    /// became of calls without an answer.
    pub fn recover(&mut self) {
        let (cluster, name) = (self.cluster, self.db.name());
        eventually("the server is back", || {
            let client = cluster.try_connect(name, "postgres");
            client.is_ok_and(|mut client| client.simple_query("SELECT 1").is_ok())
        });
        for who in 0..self.sessions.len() {
            let alive = |client: &mut Client| client.simple_query("SELECT 1").is_ok();
            // In a transaction that has failed it is an error, too: there is none between steps.
            if !self.sessions[who].client.as_mut().is_some_and(alive) {
                self.end(who);
            }
        }
        for unanswered in std::mem::take(&mut self.unanswered) {
            self.resolve(unanswered);
        }
        self.sync_keks(None).expect("the server is back");
    }
}

/// Whether a session has ended, so that nobody knows what became of its last statement.
pub fn was_cut(error: &postgres::Error) -> bool {
    match error.as_db_error() {
        Some(error) => ["57P01", "57P02", "57P03"].contains(&error.code().code()),
        None => true,
    }
}
