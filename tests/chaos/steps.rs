//! What happens next: a random choice among everything that can be called.

use postgres::types::ToSql;
use serde_json::json;
use uuid::Uuid;

use crate::callers::Caller;
use crate::model::{Effect, Micros};
use crate::operations::{Bytes, Op, Options, Place, Step};
use crate::unanswered::Unanswered;
use crate::world::{Cut, World, was_cut};

const NAMES: [&str; 5] = ["API_KEY", "TOKEN", "_hook", "db.password", "smtp-user"];
const PURPOSES: [&str; 3] = ["run", "copy", "reveal"];
const SECOND: Micros = 1_000_000;
const HOUR: Micros = 3600 * SECOND;
const DAY: Micros = 24 * HOUR;
const PROJECTS: usize = 5;

/// In every value that is stored: it must be nowhere else.
pub const MARK: &str = "cnry0c5a";

impl World<'_> {
    /// Something of anything.
    pub fn step(&mut self) -> Result<(), Cut> {
        match self.random.below(100) {
            0..3 => self.host_step(),
            3..14 => self.transaction_step(),
            14..26 => self.operators_step(),
            _ => {
                let who = self.secret_session();
                let op = self.secret_op(who);
                self.perform(who, &op)
            }
        }
    }

    /// A session that works with secrets; now and then one that has no right to.
    fn secret_session(&mut self) -> usize {
        let denied = self.random.percent(5);
        let fits = |caller: &Caller| {
            let is_denied = matches!(caller, Caller::Anon | Caller::KekAdmin | Caller::Auditor);
            is_denied == denied
        };
        let all: Vec<usize> =
            (0..self.sessions.len()).filter(|who| fits(&self.sessions[*who].caller)).collect();
        *self.random.of(&all)
    }

    /// The session of a caller that is not in a transaction.
    pub fn session_of(&mut self, caller: &Caller) -> usize {
        let found = self.sessions.iter().position(|session| session.caller == *caller);
        found.expect("there is a session of each")
    }

    // --- secrets -----------------------------------------------------------------------------------

    fn project(&mut self) -> Uuid {
        let known: Vec<Uuid> = self.state.projects.keys().copied().collect();
        match self.random.below(20) {
            // One that never was, or is no more.
            0 if !self.deleted.is_empty() => *self.random.of(&self.deleted.clone()),
            0 => Uuid::from_u128(7),
            _ => *self.random.of(&known),
        }
    }

    fn place(&mut self) -> Place {
        // Where somebody's transaction is at work, so that others meet it.
        let open = self.sessions.iter().filter_map(|session| session.transaction.as_ref());
        let touched: Vec<Place> = open
            .flat_map(|transaction| &transaction.effects)
            .filter_map(|effect| match effect {
                Effect::Secret((project, name), _) => {
                    Some(Place { project: *project, name: name.clone() })
                }
                _ => None,
            })
            .collect();
        if !touched.is_empty() && self.random.percent(20) {
            return self.random.of(&touched).clone();
        }
        let name = if self.random.percent(2) { "9 lives" } else { self.random.of(&NAMES) };
        Place { project: self.project(), name: name.to_owned() }
    }

    fn version(&mut self, who: usize, at: &Place) -> i32 {
        let current =
            self.view(who).secrets.get(&(at.project, at.name.clone())).map(|it| it.current());
        let current = current.unwrap_or(1);
        match self.random.below(10) {
            0 => current + 1,
            1 => 0,
            _ => 1 + self.random.below(current as usize) as i32,
        }
    }

    fn options(&mut self, who: usize, at: &Place) -> Options {
        let now = self.clock.now();
        let current =
            self.view(who).secrets.get(&(at.project, at.name.clone())).map(|it| it.current());
        Options {
            cas: self.random.maybe(30, |random| match random.below(10) {
                0 => -1,
                1 => current.unwrap_or(0) + 1,
                _ => current.unwrap_or(0),
            }),
            description: self.random.maybe(20, |random| format!("description {}", random.hex(4))),
            expires_at: self.random.maybe(25, |random| match random.below(10) {
                0 => now - HOUR,
                1..4 => now + 300_000,
                4..7 => now + HOUR,
                _ => now + 40 * DAY,
            }),
            metadata: self.random.maybe(20, |random| json!({"tag": random.hex(4)})),
            previous_valid_for: self.random.maybe(25, |random| *random.of(&[0, 300_000, HOUR])),
        }
    }

    fn value(&mut self) -> (Vec<u8>, bool) {
        let length = match self.random.below(40) {
            0 => return (Vec::new(), self.random.percent(50)),
            1 => 20_000,
            2 => 65_537,
            length => length,
        };
        let mut value = format!("{MARK}{}", self.random.hex(length)).into_bytes();
        match self.random.below(6) {
            0 => {
                value.extend(self.random.bytes(8));
                value.push(0);
                (value, true)
            }
            1 => (value, true),
            _ => (value, false),
        }
    }

    pub fn secret_op(&mut self, who: usize) -> Op {
        let at = self.place();
        match self.random.below(100) {
            0..24 => {
                let (value, bytes) = self.value();
                Op::Put { value: Bytes(value), bytes, options: self.options(who, &at), at }
            }
            24..29 => {
                let length = 1 + self.random.below(60) as i32;
                Op::Generate { length, options: self.options(who, &at), at }
            }
            29..34 => {
                let cas = self.options(who, &at).cas;
                Op::Rollback { version: self.version(who, &at), cas, at }
            }
            34..52 => Op::Get {
                version: self.random.percent(40).then(|| self.version(who, &at)),
                bytes: self.random.percent(40),
                purpose: self.random.maybe(50, |random| *random.of(&PURPOSES)),
                at,
            },
            52..58 => Op::GetMany {
                project: at.project,
                names: self.random.maybe(60, |random| {
                    (0..1 + random.below(4)).map(|_| (*random.of(&NAMES)).to_owned()).collect()
                }),
            },
            58..63 => Op::List {
                project: at.project,
                include_deleted: self.random.percent(50),
                after: self.random.maybe(30, |random| (*random.of(&NAMES)).to_owned()),
                page_size: 1 + self.random.below(4) as i32,
            },
            63..67 => Op::Describe { at },
            67..71 => Op::Versions { at },
            71..74 => Op::Due {
                project: self.random.percent(60).then_some(at.project),
                within: *self.random.of(&[2 * HOUR, 30 * DAY, 100 * DAY]),
            },
            74..81 => Op::Delete { at },
            81..87 => Op::Undelete { at },
            87..92 => {
                let confirm = if self.random.percent(10) { "yes" } else { &at.name };
                Op::Purge { confirm: confirm.to_owned(), at }
            }
            92..97 => {
                let now = self.clock.now();
                let expires_at = match self.random.below(4) {
                    0 => None,
                    1 => Some(now - HOUR),
                    2 => Some(now + 300_000),
                    _ => Some(now + 2 * HOUR),
                };
                Op::Expire { at, expires_at }
            }
            _ => Op::ProjectSealStatus { project: at.project },
        }
    }

    // --- transactions --------------------------------------------------------------------------------

    fn transaction_step(&mut self) -> Result<(), Cut> {
        let open: Vec<usize> = (0..self.sessions.len())
            .filter(|who| self.sessions[*who].transaction.is_some())
            .collect();
        if open.len() < 2 && self.random.percent(50) {
            let idle: Vec<usize> = (0..self.sessions.len())
                .filter(|who| {
                    let session = &self.sessions[*who];
                    let writes = matches!(session.caller, Caller::Service | Caller::User(_));
                    writes && session.transaction.is_none()
                })
                .collect();
            let who = *self.random.of(&idle);
            self.begin(who)?;
            // Something to be kept or undone.
            let op = self.secret_op(who);
            self.perform(who, &op)?;
            // PostgreSQL's own lock_timeout goes by the clock: nobody is to wait where that jumps.
            return if self.clock.is_settable() { self.whole_transaction(who) } else { Ok(()) };
        }
        let Some(who) = open.first().map(|_| *self.random.of(&open)) else { return Ok(()) };
        let has_savepoint = || self.sessions[who].transaction.as_ref()?.savepoint;
        let has_savepoint = has_savepoint().is_some();
        match self.random.below(10) {
            0..4 => self.commit(who),
            4..6 => self.rollback(who),
            6..8 if has_savepoint => self.rollback_to_savepoint(who),
            6..8 => self.savepoint(who),
            _ => {
                let op = self.secret_op(who);
                self.perform(who, &op)
            }
        }
    }

    /// What is left of a transaction, without anybody else's calls in between.
    fn whole_transaction(&mut self, who: usize) -> Result<(), Cut> {
        for _ in 0..self.random.below(4) {
            if self.sessions[who].transaction.is_none() {
                return Ok(());
            }
            let op = self.secret_op(who);
            self.perform(who, &op)?;
        }
        match self.sessions[who].transaction {
            None => Ok(()),
            Some(_) if self.random.percent(70) => self.commit(who),
            Some(_) => self.rollback(who),
        }
    }

    /// Ends all transactions.
    pub fn settle(&mut self) -> Result<(), Cut> {
        for who in 0..self.sessions.len() {
            if self.sessions[who].transaction.is_some() {
                self.commit(who)?;
            }
        }
        Ok(())
    }

    // --- operators -----------------------------------------------------------------------------------

    fn operators_step(&mut self) -> Result<(), Cut> {
        let op = self.operators_op();
        let caller = match self.random.below(20) {
            0 => Caller::Superuser,
            1 => Caller::Service,
            _ if matches!(op, Op::AuditSearch { .. } | Op::AuditVerify | Op::AuditPrune) => {
                Caller::Auditor
            }
            _ => Caller::KekAdmin,
        };
        let who = self.session_of(&caller);
        if self.sessions[who].transaction.is_some() {
            return Ok(());
        }
        if op.action().starts_with("kek_") && caller.is_granted(&op) && self.random.percent(15) {
            return self.undone(who, &op);
        }
        self.perform(who, &op)
    }

    /// A call in a transaction that is rolled back: nothing of it stays.
    fn undone(&mut self, who: usize, op: &Op) -> Result<(), Cut> {
        self.sync_keks(None)?;
        self.note(who, &format!("{op:?}, to be rolled back"));
        let client = self.client(who)?;
        // Its record, if it leaves one, is not ours.
        let done = client
            .batch_execute("SELECT set_config('request.headers', '', false); BEGIN")
            .and_then(|()| match op.call(client) {
                Err(error) if was_cut(&error) => Err(error),
                _ => client.batch_execute("ROLLBACK"),
            });
        if done.is_err() {
            self.end(who);
            return Err(Cut);
        }
        self.sync_keks(None)
    }

    fn operators_op(&mut self) -> Op {
        let project = self.project();
        let kek = 1 + self.random.below(self.state.keks.len() + 1) as i32;
        let sealed_project =
            self.state.projects.iter().find(|(_, it)| it.sealed).map(|(id, _)| *id);
        let off =
            self.state.keks.iter().find(|(_, kek)| kek.status == "disabled").map(|(id, _)| *id);
        // What is closed is opened again before long.
        if self.state.sealed_by_operator && self.random.percent(40) {
            return Op::Unseal { project: None };
        }
        if let Some(project) = sealed_project.filter(|_| self.random.percent(25)) {
            return Op::Unseal { project: Some(project) };
        }
        if let Some(kek) = off.filter(|_| self.random.percent(40)) {
            return Op::KekStep { step: Step::Enable, kek };
        }
        if self.state.active_kek().is_none() && self.random.percent(40) {
            return Op::KekRotate;
        }
        match self.random.below(100) {
            0..4 => Op::KekGenerate,
            4..12 => Op::KekRotate,
            12..16 => Op::KekRewrap { batch: 1 + self.random.below(3) as i32 },
            16..20 => Op::KekStatus,
            20..28 => Op::KekVerify { deep: self.random.percent(70) },
            28..30 => Op::KekStep { step: Step::Disable, kek },
            30..32 => Op::KekStep { step: Step::Enable, kek },
            32..34 => Op::KekStep { step: Step::MarkCompromised, kek },
            34..38 => Op::KekStep { step: Step::CancelDestroy, kek },
            38..46 => Op::KekDestroy {
                kek,
                confirm: if self.random.percent(10) {
                    String::from("yes")
                } else {
                    kek.to_string()
                },
                wait: if self.random.percent(50) { 0 } else { 7 * DAY },
            },
            46..48 => Op::KekConfigure { days: self.random.maybe(50, |_| 5000) },
            48..54 => Op::DekRotate { project },
            54..60 => Op::Reencrypt { project },
            60..62 => Op::RootKeyRotate,
            62..64 => Op::RootKeyVerify,
            64..66 => Op::RootKeyStatus,
            66..69 => Op::SealStatus,
            69..72 => Op::Seal { project: None },
            72..74 => Op::Unseal { project: None },
            74..77 => Op::Seal { project: Some(project) },
            77..80 => Op::Unseal { project: Some(project) },
            80..84 => Op::AuditSearch { project: self.random.percent(50).then_some(project) },
            84..88 => Op::AuditVerify,
            88..90 => Op::AuditPrune,
            90..94 => Op::Health,
            94..97 => Op::Metrics,
            _ => Op::Doctor,
        }
    }

    // --- the host application --------------------------------------------------------------------------

    /// Projects and members come and go.
    fn host_step(&mut self) -> Result<(), Cut> {
        let count = self.state.projects.len();
        let project = self.project();
        if !self.state.projects.contains_key(&project) {
            return Ok(());
        }
        let user = *self.random.of(&self.users.clone());
        match self.random.below(10) {
            0..2 if count < PROJECTS => self.add_project(user),
            0..2 => self.delete_project(project),
            2..6 => self.let_in(project, user),
            _ => self.let_out(project, user),
        }
    }

    pub fn add_project(&mut self, owner: Uuid) -> Result<(), Cut> {
        let bytes = self.random.bytes(16);
        let project = Uuid::from_bytes(bytes.try_into().expect("16 of them"));
        let insert = "INSERT INTO public.projects (id, owner, name) VALUES ($1, $2, 'chaos')";
        if self.host(project, insert, &[&project, &owner])? {
            self.state.projects.entry(project).or_default().members.insert(owner);
        }
        Ok(())
    }

    fn delete_project(&mut self, project: Uuid) -> Result<(), Cut> {
        if self.host(project, "DELETE FROM public.projects WHERE id = $1", &[&project])? {
            self.project_is_gone(project);
        }
        Ok(())
    }

    pub fn project_is_gone(&mut self, project: Uuid) {
        if self.state.projects.get(&project).is_some_and(|it| it.data_key > 0) {
            self.deleted.push(project);
        }
        self.state.remove_project(project);
    }

    pub fn let_in(&mut self, project: Uuid, user: Uuid) -> Result<(), Cut> {
        let insert = "INSERT INTO public.project_members VALUES ($1, $2) ON CONFLICT DO NOTHING";
        if self.host(project, insert, &[&project, &user])? {
            self.state.projects.entry(project).or_default().members.insert(user);
        }
        Ok(())
    }

    /// The owner stays.
    fn let_out(&mut self, project: Uuid, user: Uuid) -> Result<(), Cut> {
        let delete = "DELETE FROM public.project_members WHERE project_id = $1 AND user_id = $2";
        if self.host(project, delete, &[&project, &user])? {
            self.unanswered.push(Unanswered::Host(project));
            self.recover();
        }
        Ok(())
    }

    /// A statement of the host's; false if somebody's lock is in the way.
    fn host(
        &mut self,
        project: Uuid,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<bool, Cut> {
        let who = self.session_of(&Caller::Superuser);
        self.note(who, &format!("{statement} {parameters:?}"));
        self.count("host");
        match self.client(who)?.execute(statement, parameters) {
            Ok(_) => Ok(true),
            Err(error) if was_cut(&error) => {
                self.end(who);
                self.unanswered.push(Unanswered::Host(project));
                Err(Cut)
            }
            Err(error) if error.code().is_some_and(|code| code.code() == "55P03") => Ok(false),
            Err(error) => self.diverged(&format!("{statement}: {error:?}")),
        }
    }
}
