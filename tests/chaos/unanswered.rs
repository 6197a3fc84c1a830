//! Calls and commits that were cut off. They were done or not done, as a whole: a look decides.

use postgres::Client;
use uuid::Uuid;

use crate::callers::Caller;
use crate::expect::Question;
use crate::ledger::records;
use crate::model::{Effect, Key, State, When};
use crate::operations::{Actual, Answer, Op, Place};
use crate::world::{Transaction, World};

pub enum Unanswered {
    Call {
        request: String,
        op: Op,
        caller: Caller,
        /// What the caller saw.
        view: State,
        during: When,
        in_transaction: bool,
    },
    Commit(Transaction),
    /// What it did to the KEKs was not seen.
    Keks(Op),
    /// A change of this project, or of its members, by the host application.
    Host(Uuid),
}

impl World<'_> {
    /// Finds out what became of it.
    pub fn resolve(&mut self, unanswered: Unanswered) {
        match unanswered {
            Unanswered::Commit(transaction) => self.resolve_commit(transaction),
            Unanswered::Keks(op) => self.sync_keks(Some(&op)).expect("the server is back"),
            Unanswered::Host(project) => self.resolve_host(project),
            Unanswered::Call { request, op, caller, view, mut during, in_transaction } => {
                // It may have gone on for a while after its client was gone.
                during.to = self.clock.now();
                if !in_transaction && op.changes_secret() {
                    let question =
                        Question { view: &view, caller: &caller, now: during.from, during };
                    return self.resolve_change(&request, &op, &question);
                }
                if !in_transaction {
                    self.resolve_administration(&op);
                }
                self.ledger.unanswered(&request, &op, &caller);
            }
        }
    }

    fn resolve_commit(&mut self, transaction: Transaction) {
        let after = self.state.with(&transaction.effects);
        let mut done = true;
        let mut not_done = true;
        for effect in &transaction.effects {
            match effect {
                Effect::Secret(key, _) => {
                    let actual = self.look(key);
                    done &= self.is_so(&after, key, actual.as_ref());
                    not_done &= self.is_so(&self.state, key, actual.as_ref());
                }
                Effect::DataKey(project, _) | Effect::Sealed(project, _) => {
                    let newest = self.data_key(*project).0;
                    done &= newest == after.projects[project].data_key;
                    not_done &= newest == self.state.projects[project].data_key;
                }
            }
        }
        match (done, not_done) {
            (true, true) => {
                self.history.note(String::from("the commit changed nothing, done or not"));
                for (request, _) in &transaction.records {
                    self.ledger.unclear(request);
                }
            }
            (true, false) => {
                self.history.note(String::from("the commit without an answer was done"));
                self.committed(transaction);
            }
            (false, true) => self.history.note(String::from("the commit was not done")),
            (false, false) => self.diverged(&format!("half a transaction: {transaction:?}")),
        }
    }

    /// What it would have answered follows from what is there, if it was done.
    fn resolve_change(&mut self, request: &str, op: &Op, question: &Question<'_>) {
        let place = op.place().expect("it changes a secret");
        let key: Key = (place.project, place.name.clone());
        let actual = self.look(&key);
        let not_done = self.is_so(&self.state, &key, actual.as_ref());
        let answer = actual.as_ref().map_or(Answer::Nothing, |actual| answer(op, actual));
        if let Ok(effects) = question.judge(op, &Ok(answer.clone())) {
            let after = self.state.with(&effects);
            let newest = self.data_key(place.project).0;
            let same_key =
                after.projects.get(&place.project).is_none_or(|it| it.data_key == newest);
            if !effects.is_empty() && self.is_so(&after, &key, actual.as_ref()) && same_key {
                self.history.note(String::from("the call without an answer was done"));
                let records = records(op, question.caller, question.view, &answer);
                self.ledger.succeeded(request, records);
                self.state = after;
                return;
            }
        }
        if !not_done {
            let must = self.state.secrets.get(&key);
            self.diverged(&format!("half of {op:?}: {actual:?} instead of {must:?}"));
        }
        self.history.note(String::from("the call without an answer was not done"));
        self.ledger.unanswered(request, op, question.caller);
    }

    fn resolve_host(&mut self, project: Uuid) {
        let find = "SELECT array_agg(user_id) FROM (
                SELECT owner AS user_id FROM public.projects WHERE id = $1
                UNION SELECT user_id FROM public.project_members WHERE project_id = $1) members";
        let row = self.testimony(find, &[&project]);
        match row.get::<_, Option<Vec<Uuid>>>(0) {
            Some(members) => {
                let known = self.state.projects.entry(project).or_default();
                known.members = members.into_iter().collect();
            }
            None => self.project_is_gone(project),
        }
    }

    /// Operators' calls leave their traces in other places.
    fn resolve_administration(&mut self, op: &Op) {
        self.sync_keks(Some(op)).expect("the server is back");
        if let Some(project) = op.project()
            && self.state.projects.contains_key(&project)
        {
            let (newest, sealed) = self.data_key(project);
            let known = &self.state.projects[&project];
            let legal = match op {
                Op::DekRotate { .. } => sealed == known.sealed && (newest - known.data_key) <= 1,
                Op::Seal { .. } => newest == known.data_key && (sealed || !known.sealed),
                Op::Unseal { .. } => newest == known.data_key && (!sealed || known.sealed),
                _ => (newest, sealed) == (known.data_key, known.sealed),
            };
            if !legal {
                self.diverged(&format!("data key {newest}, sealed {sealed} after {op:?}"));
            }
            self.state.apply(&Effect::DataKey(project, newest));
            self.state.apply(&Effect::Sealed(project, sealed));
        }
        if matches!(op, Op::Seal { project: None } | Op::Unseal { project: None }) {
            let asked = "SELECT coalesce(cause, '') FROM meshhook_secrets.seal_status()";
            let cause: String = self.testimony(asked, &[]).get(0);
            self.state.sealed_by_operator = cause.contains("operator");
        }
    }

    fn is_so(&self, state: &State, key: &Key, actual: Option<&Actual>) -> bool {
        let now = self.clock.now();
        match (state.secrets.get(key), actual) {
            (None, None) => true,
            // What expires in between may be told either way.
            (Some(secret), Some(actual)) => {
                secret.agrees(&key.1, actual, now) || secret.agrees(&key.1, actual, now - 1_000_000)
            }
            _ => false,
        }
    }

    /// The newest version of a project's data key, and whether they are disabled.
    pub fn data_key(&self, project: Uuid) -> (i32, bool) {
        let newest =
            "SELECT coalesce(max(dek_version), 0), coalesce(bool_or(status = 'disabled'), false)
            FROM meshhook_secrets.data_keys WHERE project_id = $1";
        let row = self.testimony(newest, &[&project]);
        (row.get(0), row.get(1))
    }

    /// A secret as it is in the database.
    fn look(&self, (project, name): &Key) -> Option<Actual> {
        let mut client = self.witness();
        let at = Place { project: *project, name: name.clone() };
        let info = match ask(&mut client, &Op::Describe { at: at.clone() }) {
            Ok(Answer::Infos(infos)) => infos.into_iter().next()?,
            _ => return None,
        };
        let Ok(Answer::Versions(versions)) = ask(&mut client, &Op::Versions { at: at.clone() })
        else {
            return None;
        };
        let read = |version: i32| {
            let get =
                Op::Get { at: at.clone(), version: Some(version), bytes: true, purpose: None };
            match ask(&mut self.witness(), &get) {
                Ok(Answer::Value(value)) => Some((version, value)),
                _ => None,
            }
        };
        let values = versions.iter().filter_map(|stored| read(stored.version)).collect();
        Some(Actual { info, versions, values })
    }
}

fn ask(client: &mut Client, op: &Op) -> Result<Answer, postgres::Error> {
    op.call(client)
}

fn answer(op: &Op, actual: &Actual) -> Answer {
    let info = &actual.info;
    match op {
        Op::Put { .. } | Op::Generate { .. } | Op::Rollback { .. } => Answer::Written {
            id: info.id,
            name: info.name.clone(),
            version: info.current_version,
            created_at: actual.versions.first().map_or(info.created_at, |newest| newest.created_at),
            expires_at: info.expires_at,
        },
        _ => Answer::Infos(vec![info.clone()]),
    }
}
