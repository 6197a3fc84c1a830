//! What must be in the audit log: a record for every answer, and none for what never happened.

use std::collections::{BTreeMap, BTreeSet};

use postgres::Client;
use serde_json::Value;
use support::Cluster;
use uuid::Uuid;

use crate::callers::Caller;
use crate::expect::is_name;
use crate::model::State;
use crate::operations::{Answer, Op};

/// Tells our calls from others' in the log.
const OURS: &str = "chaos-";

/// What is known about the records of the calls that were made.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By request id: the records that must be there, each once.
    certain: BTreeMap<String, Vec<String>>,
    /// Calls without an answer that changed nothing: if they came far enough, they left records.
    uncertain: BTreeSet<String>,
    /// Failures that were answered. Repeats are one record with a count, so these are counted too.
    failures: BTreeMap<String, i64>,
    /// Calls without an answer that may have failed: their action and who called.
    maybe_failed: Vec<String>,
}

impl Ledger {
    pub fn request_id(number: usize) -> String {
        format!("{OURS}{number}")
    }

    pub fn succeeded(&mut self, request: &str, records: Vec<String>) {
        if !records.is_empty() {
            self.certain.insert(request.to_owned(), records);
        }
    }

    pub fn failed(&mut self, op: &Op, caller: &Caller, code: &str) {
        *self.failures.entry(failure(op, caller, code)).or_default() += 1;
    }

    /// It got no answer, and what it changed, if it did, is not there.
    pub fn unanswered(&mut self, request: &str, op: &Op, caller: &Caller) {
        self.maybe_failed.push(format!("{} {} ", op.action(), who(caller)));
        if !op.changes_secret() {
            self.uncertain.insert(request.to_owned());
        }
    }

    /// Whether it was done cannot be seen.
    pub fn unclear(&mut self, request: &str) {
        self.uncertain.insert(request.to_owned());
    }

    /// How many calls are accounted for.
    pub fn calls(&self) -> (usize, i64) {
        (self.certain.len(), self.failures.values().sum())
    }

    /// Whether the log agrees; what is wrong with it.
    pub fn audit(&self, cluster: &Cluster, superuser: &mut Client) -> Vec<String> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut failures: BTreeMap<String, i64> = BTreeMap::new();
        let mut note = |record: &Value, logged: bool| {
            let text = |field: &str| match &record[field] {
                Value::Null => String::from("-"),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let request = text("request_id");
            // Deletions by the host are looked for by themselves.
            if !request.starts_with(OURS) || record["action"] == "project_deleted" {
                return;
            }
            let who = format!("{} {}", text("actor_role"), text("claimed_sub"));
            let (action, project, name) = (text("action"), text("project_id"), text("name"));
            let (kek, outcome) = (text("kek_id"), text("outcome"));
            let of_item = action == "secret_get_many" && name != "-";
            if outcome != "ok" && !of_item {
                let name = if outcome == "denied" { "-" } else { &name };
                let key = format!("{action} {who} {} {project} {kek} {name}", text("sqlstate"));
                *failures.entry(key).or_default() += record["times"].as_i64().unwrap_or(1);
                return;
            }
            let (version, purpose) = (text("version"), text("purpose"));
            let line = line(&action, &outcome, &project, &name, &version, &kek, &purpose, &who);
            let of_request = found.entry(request).or_default();
            // What the server logs as it stops may have been committed just before.
            if !(logged && of_request.contains(&line)) {
                of_request.push(line);
            }
        };
        let all = "SELECT to_jsonb(l) FROM meshhook_secrets.audit_log l";
        for row in superuser.query(all, &[]).expect("superuser may") {
            note(&row.get(0), false);
        }
        for log_line in cluster.log().lines() {
            if let Some((_, record)) = log_line.split_once("meshhook_secrets audit: ") {
                note(&serde_json::from_str(record).expect("a record is JSON"), true);
            }
        }

        let mut problems = Vec::new();
        for (request, must) in &self.certain {
            let mut is = found.remove(request).unwrap_or_default();
            let mut must = must.clone();
            is.sort();
            must.sort();
            if is != must {
                problems.push(format!("{request}: {is:#?} instead of {must:#?}"));
            }
        }
        for (request, is) in found {
            if !self.uncertain.contains(&request) {
                problems.push(format!("{request}: {is:#?} of what never happened"));
            }
        }
        let mut maybe = self.maybe_failed.clone();
        for key in self.failures.keys().chain(failures.keys()).collect::<BTreeSet<_>>() {
            let must = self.failures.get(key).copied().unwrap_or(0);
            let mut is = failures.get(key).copied().unwrap_or(0);
            while is > must
                && let Some(index) = maybe.iter().position(|it| key.starts_with(it))
            {
                maybe.swap_remove(index);
                is -= 1;
            }
            if is != must {
                problems.push(format!("failures {key}: {is} instead of {must}"));
            }
        }
        problems
    }
}

/// The records of a call that succeeded.
pub fn records(op: &Op, caller: &Caller, view: &State, answer: &Answer) -> Vec<String> {
    if matches!(op, Op::ProjectSealStatus { .. } | Op::Health | Op::Metrics | Op::Doctor) {
        return Vec::new();
    }
    let secret = op.place().and_then(|at| view.secrets.get(&(at.project, at.name.clone())));
    let version = match (op, answer) {
        (_, Answer::Written { version, .. }) => Some(*version),
        (Op::Get { version: Some(version), .. }, _) => Some(*version),
        (Op::Describe { .. } | Op::Versions { .. }, _) => None,
        _ => secret.map(|secret| secret.current()),
    };
    let kek = match (op, answer) {
        (Op::KekGenerate, Answer::Rows(rows)) => Some(rows[0].get(0)),
        (Op::KekRotate, Answer::Rows(rows)) => Some(rows[0].get("kek_id")),
        _ => op.kek(),
    };
    let purpose = match op {
        Op::Get { purpose, .. } => *purpose,
        _ => None,
    };
    let record = |outcome: &str, name: Option<&str>, version: Option<i32>| {
        line(
            op.action(),
            outcome,
            &known(op.project()),
            name.unwrap_or("-"),
            &known(version),
            &known(kek),
            purpose.unwrap_or("-"),
            &who(caller),
        )
    };
    match answer {
        Answer::Items(items) if !items.is_empty() => {
            let outcome = |status: &str| match status {
                "ok" => "ok",
                "not_found" | "deleted" | "expired" => "not_found",
                _ => "error",
            };
            let item = |it: &(String, _, _, String)| record(outcome(&it.3), Some(&it.0), it.2);
            items.iter().map(item).collect()
        }
        _ => vec![record("ok", op.place().map(|at| at.name.as_str()), version)],
    }
}

#[expect(clippy::too_many_arguments, reason = "the columns of a record")]
fn line(
    action: &str,
    outcome: &str,
    project: &str,
    name: &str,
    version: &str,
    kek: &str,
    purpose: &str,
    who: &str,
) -> String {
    format!("{action} {outcome} {project} {name} {version} {kek} {purpose} {who}")
}

/// What failures of the same likeness share.
fn failure(op: &Op, caller: &Caller, code: &str) -> String {
    if !caller.is_granted(op) {
        // PostgreSQL itself refuses, and knows nothing of arguments.
        let role = match caller {
            Caller::KekAdmin | Caller::Auditor | Caller::Superuser => "-",
            _ => caller.role(),
        };
        let sub = known(caller.user());
        return format!("{} {role} {sub} {code} - - -", op.action());
    }
    let name = op.place().map(|at| at.name.as_str());
    let name = name.filter(|name| code != "42501" && is_name(name)).unwrap_or("-");
    let (project, kek) = (known(op.project()), known(op.kek()));
    format!("{} {} {code} {project} {kek} {name}", op.action(), who(caller))
}

fn who(caller: &Caller) -> String {
    format!("{} {}", caller.role(), known(caller.user()))
}

fn known<T: ToString>(it: Option<T>) -> String {
    it.map_or_else(|| String::from("-"), |it| it.to_string())
}

/// The records that the server itself must have left: each finished rotation once.
pub fn rotations(superuser: &mut Client) -> Vec<String> {
    let differ = "SELECT j.kek_id, count(l.id) FROM meshhook_secrets.rotation_jobs j
        LEFT JOIN meshhook_secrets.audit_log l ON l.action = 'rotation_finish' AND l.kek_id = j.kek_id
        WHERE j.finished_at IS NOT NULL AND j.last_error IS NULL GROUP BY 1 HAVING count(l.id) <> 1";
    let rows = superuser.query(differ, &[]).expect("superuser may");
    let tell = |row: &postgres::Row| {
        format!("rotation to KEK {}: {} records", row.get::<_, i32>(0), row.get::<_, i64>(1))
    };
    rows.iter().map(tell).collect()
}

/// Deletions of projects that had a data key: each once.
pub fn deletions(superuser: &mut Client, projects: &[Uuid]) -> Vec<String> {
    let count = "SELECT count(*) FROM meshhook_secrets.audit_log
        WHERE action = 'project_deleted' AND project_id = $1";
    let mut problems = Vec::new();
    for project in projects {
        let records: i64 = superuser.query_one(count, &[project]).expect("superuser may").get(0);
        if records != 1 {
            problems.push(format!("deletion of project {project}: {records} records"));
        }
    }
    problems
}
