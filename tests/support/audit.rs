//! The audit log as its auditor sees it.

use std::time::{Duration, Instant};

use postgres::Client;
use serde_json::Value;

use crate::{Cluster, Database, eventually};

/// A role that may see the whole log, and nothing else.
const AUDITOR: &str = "whole_auditor";

/// A connection of a role with BYPASSRLS and the rights of `meshhook_secrets_auditor`.
pub struct Auditor {
    /// The connection, for what is not here.
    pub client: Client,
}

/// What `audit_verify` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Nothing was tampered with.
    pub ok: bool,
    /// Seals that were checked.
    pub seals: i64,
    /// Records that were checked.
    pub records: i64,
    /// Records without a seal yet.
    pub unsealed: i64,
    /// The first seal.
    pub first_seal: Option<i64>,
    /// The last seal.
    pub last_seal: Option<i64>,
    /// What is wrong, in words.
    pub problems: Vec<String>,
}

impl Database<'_> {
    /// The auditor of this database.
    pub fn auditor(&self) -> Auditor {
        make_role(self.cluster(), AUDITOR, "LOGIN BYPASSRLS IN ROLE meshhook_secrets_auditor");
        Auditor { client: self.connect(AUDITOR) }
    }

    /// A role of this test's server that is a member of one of our roles and may log in.
    pub fn member_of(&self, group: &str) -> Client {
        let role = format!("member_of_{group}");
        make_role(self.cluster(), &role, &format!("LOGIN IN ROLE {group}"));
        self.connect(&role)
    }
}

/// Makes a role if there is none: tests that share a server come here at the same moment.
pub fn make_role(cluster: &Cluster, role: &str, options: &str) {
    let make = format!(
        "DO $$ BEGIN CREATE ROLE {role} {options};
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    );
    cluster.connect("postgres", "postgres").batch_execute(&make).expect("superuser may");
}

impl Auditor {
    /// The records that `audit_search` gives for these arguments (SQL), oldest first.
    pub fn search(&mut self, arguments: &str) -> Vec<Value> {
        search(&mut self.client, arguments)
    }

    /// The one record that there is.
    #[track_caller]
    pub fn one(&mut self, arguments: &str) -> Value {
        let mut found = self.search(arguments);
        assert_eq!(found.len(), 1, "{arguments}: {found:#?}");
        found.remove(0)
    }

    /// `action outcome` of the records, oldest first.
    pub fn outcomes(&mut self, arguments: &str) -> Vec<String> {
        let text = |record: &Value, field: &str| record[field].as_str().unwrap_or("-").to_owned();
        let found = self.search(arguments);
        found.iter().map(|it| format!("{} {}", text(it, "action"), text(it, "outcome"))).collect()
    }

    /// What `audit_verify` says.
    pub fn verify(&mut self) -> Verified {
        verify(&mut self.client, "")
    }

    /// Asserts that the whole log verifies.
    #[track_caller]
    pub fn assert_good(&mut self) -> Verified {
        let verified = self.verify();
        assert!(verified.ok && verified.problems.is_empty(), "{verified:#?}");
        assert!(verified.seals > 0 && verified.records > 0, "nothing to verify: {verified:?}");
        verified
    }
}

/// The records that `audit_search` gives a caller for these arguments (SQL), oldest first.
pub fn search(client: &mut Client, arguments: &str) -> Vec<Value> {
    let all = if arguments.contains("page_size") { "" } else { "page_size => 1000" };
    let comma = if arguments.is_empty() || all.is_empty() { "" } else { ", " };
    let search = format!(
        "SELECT to_jsonb(found) FROM meshhook_secrets.audit_search({arguments}{comma}{all}) found"
    );
    // It waits two seconds for the writer, then gives what there is: on a machine that is busy, again.
    for _ in 0..10 {
        let asked = Instant::now();
        let found =
            client.query(&search, &[]).unwrap_or_else(|error| panic!("{search}: {error:?}"));
        if asked.elapsed() < Duration::from_millis(1900) {
            return found.into_iter().rev().map(|row| row.get(0)).collect();
        }
    }
    panic!("the audit writer does not answer");
}

/// What `audit_verify` says to a caller; arguments as SQL.
pub fn verify(client: &mut impl postgres::GenericClient, arguments: &str) -> Verified {
    let verify = format!("SELECT * FROM meshhook_secrets.audit_verify({arguments})");
    let row = client.query_one(&verify, &[]).unwrap_or_else(|error| panic!("{verify}: {error:?}"));
    Verified {
        ok: row.get("ok"),
        seals: row.get("seals"),
        records: row.get("records"),
        unsealed: row.get("unsealed"),
        first_seal: row.get("first_seal"),
        last_seal: row.get("last_seal"),
        problems: row.get("problems"),
    }
}

/// The process id of a database's audit writer, once it has one.
pub fn writer_pid(db: &Database<'_>) -> i32 {
    let mut superuser = db.superuser();
    let mut pid = None;
    eventually("the audit writer runs", || {
        pid = find_writer(&mut superuser);
        pid.is_some()
    });
    pid.expect("just found")
}

/// The process id of the audit writer of a connection's database, if it has one now.
pub fn find_writer(superuser: &mut Client) -> Option<i32> {
    let find = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'meshhook_secrets audit'";
    superuser.query_opt(find, &[]).expect("superuser may").map(|row| row.get(0))
}
