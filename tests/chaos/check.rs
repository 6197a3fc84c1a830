//! Looking at everything: after each fault through the functions, at the end also behind them.

use std::fs;

use support::{eventually, server_process};
use uuid::Uuid;

use crate::callers::Caller;
use crate::ledger;
use crate::operations::{Op, Place};
use crate::steps::MARK;
use crate::world::{Cut, World};

/// What no server log may hold.
const BAD_LINES: [&str; 14] = [
    "PANIC:",
    "TRAP:",
    "internal error in meshhook_secrets",
    "failed authentication",
    "you don't own a lock",
    "leaked",
    "refcount leak",
    "still active",
    "was not closed",
    "not closed at transaction end",
    "snapshot reference leak",
    "unexpected",
    "invalid memory alloc",
    "corrupt",
];

impl World<'_> {
    /// Every secret, by whoever may and whoever may not; the KEKs; the log.
    pub fn check(&mut self) {
        self.history.note(String::from("--- looking at everything"));
        if self.check_all().is_err() {
            self.diverged("cut off without a fault");
        }
    }

    fn check_all(&mut self) -> Result<(), Cut> {
        self.settle()?;
        let service = self.session_of(&Caller::Service);
        let projects: Vec<Uuid> = self.state.projects.keys().copied().collect();
        for project in projects {
            let (include_deleted, after, page_size) = (true, None, 1000);
            self.perform(service, &Op::List { project, include_deleted, after, page_size })?;
            self.perform(service, &Op::GetMany { project, names: None })?;
            self.perform(service, &Op::ProjectSealStatus { project })?;
            let names: Vec<(String, i32)> = self
                .state
                .of_project(project)
                .map(|(name, secret)| (name.to_owned(), secret.current()))
                .collect();
            for (name, current) in names {
                let at = Place { project, name };
                self.perform(service, &Op::Versions { at: at.clone() })?;
                for version in (current - 4).max(1)..=current {
                    let (at, version, bytes) = (at.clone(), Some(version), true);
                    self.perform(service, &Op::Get { at, version, bytes, purpose: None })?;
                }
            }
            // Members read, all others are refused.
            if let Some(name) = self.some_name(project) {
                let at = Place { project, name };
                for who in 0..self.sessions.len() {
                    let (at, version, bytes) = (at.clone(), None, true);
                    let get = Op::Get { at, version, bytes, purpose: Some("check") };
                    self.perform(who, &get)?;
                }
            }
        }
        let admin = self.session_of(&Caller::KekAdmin);
        self.perform(admin, &Op::KekVerify { deep: true })?;
        self.perform(admin, &Op::SealStatus)?;
        let auditor = self.session_of(&Caller::Auditor);
        for op in [Op::AuditVerify, Op::Health, Op::Metrics, Op::Doctor] {
            self.perform(auditor, &op)?;
        }
        let strays = "SELECT
            (SELECT count(*) FROM meshhook_secrets.project_secrets) AS secrets,
            (SELECT count(*) FROM meshhook_secrets.data_keys d WHERE NOT EXISTS
                (SELECT FROM public.projects p WHERE p.id = d.project_id)) AS keys,
            (SELECT count(*) FROM meshhook_secrets.data_keys d JOIN meshhook_secrets.kek_storage k
                USING (kek_id) WHERE k.status IN ('destroy_scheduled', 'destroyed')) AS closed";
        let row = self.testimony(strays, &[]);
        let found: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if found != (self.state.secrets.len() as i64, 0, 0) {
            self.diverged(&format!("secrets, stray keys, keys of destroyed KEKs: {found:?}"));
        }
        Ok(())
    }

    fn some_name(&mut self, project: Uuid) -> Option<String> {
        let names: Vec<String> = self.state.of_project(project).map(|it| it.0.to_owned()).collect();
        if names.is_empty() { None } else { Some(self.random.of(&names).clone()) }
    }

    /// The end: what the log says, what the files hold, and that nothing of us is left.
    pub fn finish(mut self) {
        self.open_all();
        self.check();
        for who in 0..self.sessions.len() {
            self.end(who);
        }
        let mut superuser = self.witness();
        eventually("every record is sealed", || {
            let left = "SELECT count(*) FROM meshhook_secrets.audit_pending";
            superuser.query_one(left, &[]).expect("superuser may").get::<_, i64>(0) == 0
        });
        drop(superuser);
        // A stop has repeats of failures recorded before their minute is over.
        self.cluster.restart();
        let mut superuser = self.witness();
        eventually("the queue is empty", || {
            let depth = "SELECT value FROM meshhook_secrets.metrics()
                WHERE name = 'meshhook_secrets_audit_queue_records'";
            superuser.query_one(depth, &[]).expect("superuser may").get::<_, f64>(0) == 0.0
        });
        let mut problems = self.ledger.audit(self.cluster, &mut superuser);
        problems.extend(ledger::rotations(&mut superuser));
        problems.extend(ledger::deletions(&mut superuser, &self.deleted));
        superuser.batch_execute("CHECKPOINT").expect("superuser may");
        let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
        for trace in [MARK.as_bytes(), hex.as_bytes()] {
            let files = self.cluster.files_containing(trace);
            problems.extend(files.iter().map(|file| format!("values are in {}", file.display())));
        }
        problems.extend(self.bad_lines());
        if !problems.is_empty() {
            let all = problems.join("\n  ");
            self.diverged(&format!("{} problems:\n  {all}", problems.len()));
        }
        drop(superuser);
        // Not by force: who lingers in it leaves.
        let drop = format!("DROP DATABASE {}", self.db.name());
        self.cluster.connect("postgres", "postgres").batch_execute(&drop).expect("nobody is in it");
        for worker in ["meshhook_secrets audit", "meshhook_secrets maintenance"] {
            eventually("the workers are gone", || {
                server_process(self.cluster.postmaster_pid(), worker).is_none()
            });
        }
        let (answered, failed) = self.ledger.calls();
        println!("{}: {answered} calls answered, {failed} refused", self.history.title);
        println!("  {:?}", self.counts);
    }

    /// Opens whatever was closed.
    fn open_all(&mut self) {
        self.recover();
        if self.check_open().is_err() {
            self.diverged("cut off without a fault");
        }
    }

    fn check_open(&mut self) -> Result<(), Cut> {
        self.settle()?;
        let admin = self.session_of(&Caller::KekAdmin);
        self.perform(admin, &Op::Unseal { project: None })?;
        let off = self.state.keks.iter().filter(|(_, kek)| kek.status == "disabled");
        let off: Vec<i32> = off.map(|(id, _)| *id).collect();
        for kek in off {
            let step = crate::operations::Step::Enable;
            self.perform(admin, &Op::KekStep { step, kek })?;
        }
        self.perform(admin, &Op::KekRotate)?;
        let sealed = self.state.projects.iter().filter(|(_, it)| it.sealed);
        let sealed: Vec<Uuid> = sealed.map(|(id, _)| *id).collect();
        for project in sealed {
            self.perform(admin, &Op::Unseal { project: Some(project) })?;
        }
        let retiring =
            "SELECT count(*) FROM meshhook_secrets.kek_storage WHERE status = 'retiring'";
        let mut witness = self.witness();
        eventually("the rotation ends", || {
            witness.query_one(retiring, &[]).expect("superuser may").get::<_, i64>(0) == 0
        });
        Ok(())
    }

    fn bad_lines(&self) -> Vec<String> {
        let log = self.cluster.log();
        let killed = |line: &str| {
            let of_it = |pid: &i32| line.contains(&format!("(PID {pid})"));
            line.contains("signal 9") && self.killed.iter().any(of_it)
        };
        let is_bad = |line: &&str| {
            BAD_LINES.iter().any(|bad| line.contains(bad))
                || (line.contains("was terminated by signal") && !killed(line))
        };
        let mut bad: Vec<String> = log.lines().filter(is_bad).map(str::to_owned).collect();
        bad.truncate(30);
        let cores = fs::read_dir(self.cluster.data_dir()).into_iter().flatten().flatten();
        bad.extend(
            cores
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.starts_with("core")),
        );
        bad
    }
}
