//! Eight clients at work while backends, the audit writer, the launcher and the whole server are
//! killed, terminated and restarted under them. Every client notes what it asked for and what it got;
//! in the end the log must agree with these notes: nothing lost, nothing doubled.
//! `ORACLE_SECONDS` sets how long each of the tests works (default 20).

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use postgres::Client;
use serde_json::{Value, json};
use support::{Cluster, Database, eventually};
use uuid::Uuid;

const CLIENTS: usize = 8;
const WRITER: &str = "meshhook_secrets audit";
const LAUNCHER: &str = "meshhook_secrets launcher";
const AUDITOR: &str = "test_auditor";

#[test]
fn log_agrees_with_what_clients_were_given_when_they_wait() {
    oracle("wait");
}

#[test]
fn log_agrees_with_what_clients_were_given_when_they_do_not_wait() {
    oracle("nowait");
}

fn oracle(mode: &str) {
    let cluster = Cluster::builder().setting("meshhook_secrets.audit_mode", mode).start();
    let db = cluster.database();
    let mut superuser = db.superuser();
    let role = format!(
        "CREATE ROLE {AUDITOR} LOGIN BYPASSRLS; GRANT meshhook_secrets_auditor TO {AUDITOR}"
    );
    superuser.batch_execute(&role).unwrap();
    let users: Vec<User> = (0..CLIENTS).map(|index| User::new(&db, index)).collect();
    let length = std::env::var("ORACLE_SECONDS").map_or(20, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(length);

    let over = AtomicBool::new(false);
    let (notes, disasters) = scope(|scope| {
        let work = |user| {
            scope.spawn({
                let (db, over) = (&db, &over);
                move || work(db, user, over)
            })
        };
        let clients: Vec<_> = users.iter().map(work).collect();
        let disasters = strike_until(&db, end);
        over.store(true, Ordering::SeqCst);
        let notes: Vec<Notes> = clients.into_iter().map(|it| it.join().unwrap()).collect();
        (notes, disasters)
    });
    println!("{mode}: {disasters:?}");
    assert!(DISASTERS.iter().all(|kind| disasters.contains_key(kind)), "{disasters:?}");
    // A stop has repeats of denials recorded before their minute is over.
    cluster.restart();
    Log::read(&cluster, &db).agrees_with(&users, &notes, &db, mode);
}

// --- disasters ------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Disaster {
    KilledBackend,
    KilledWriter,
    TerminatedBackend,
    TerminatedWriter,
    TerminatedLauncher,
    Restart,
}

const DISASTERS: [Disaster; 6] = [
    Disaster::KilledWriter,
    Disaster::TerminatedWriter,
    Disaster::KilledBackend,
    Disaster::TerminatedLauncher,
    Disaster::TerminatedBackend,
    Disaster::Restart,
];

/// One disaster after the other, with work in between; how often which of them struck.
fn strike_until(db: &Database<'_>, end: Instant) -> BTreeMap<Disaster, usize> {
    let mut struck = BTreeMap::new();
    for (count, kind) in DISASTERS.iter().cycle().enumerate() {
        sleep(Duration::from_millis(450 + 97 * (count as u64 % 7)));
        if Instant::now() > end {
            break;
        }
        if strike(db, *kind) {
            *struck.entry(*kind).or_default() += 1;
        }
    }
    struck
}

/// False if there was nobody to strike just now.
fn strike(db: &Database<'_>, kind: Disaster) -> bool {
    let cluster = db.cluster();
    let victim = match kind {
        Disaster::Restart => {
            cluster.restart();
            return true;
        }
        Disaster::KilledWriter | Disaster::TerminatedWriter => WRITER,
        Disaster::TerminatedLauncher => LAUNCHER,
        Disaster::KilledBackend | Disaster::TerminatedBackend => "client backend",
    };
    let mut witness = cluster.connect("postgres", "postgres");
    let find =
        "SELECT pid FROM pg_stat_activity WHERE backend_type = $1 AND pid <> pg_backend_pid()
        AND (datname = $2 OR datname IS NULL) ORDER BY random() LIMIT 1";
    let Some(row) = witness.query_opt(find, &[&victim, &db.name()]).unwrap() else {
        return false;
    };
    let pid: i32 = row.get(0);
    if !matches!(kind, Disaster::KilledBackend | Disaster::KilledWriter) {
        let done = witness.query_one("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
        return done.get(0);
    }
    // It may have ended meanwhile, by itself.
    let killed = Command::new("sh")
        .args(["-c", "kill -s KILL \"$0\"", &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    if !killed.unwrap().success() {
        return false;
    }
    eventually("the server noticed the crash", || witness.simple_query("SELECT 1").is_err());
    eventually("the server is back", || cluster.try_connect("postgres", "postgres").is_ok());
    true
}

// --- clients ----------------------------------------------------------------------------------

/// A user with a project of three secrets, whose values are their names.
struct User {
    index: usize,
    id: Uuid,
    project: Uuid,
    closed: Uuid,
}

const NAMES: [&str; 3] = ["FIRST", "SECOND", "THIRD"];

impl User {
    fn new(db: &Database<'_>, index: usize) -> Self {
        let id = Uuid::new_v4();
        let project = db.project(id);
        let mut client = db.user(id);
        for name in NAMES {
            let put = "SELECT meshhook_secrets.secret_put($1, $2, $3)";
            client.query(put, &[&project, &name, &name]).unwrap();
        }
        Self { index, id, project, closed: db.project(Uuid::new_v4()) }
    }

    fn try_connect(&self, db: &Database<'_>) -> Result<Client, postgres::Error> {
        let mut client = db.cluster().try_connect(db.name(), "authenticator")?;
        let claims = json!({"role": "authenticated", "sub": self.id}).to_string();
        client.execute(
            "SELECT set_config('request.jwt.claims', $1, false), set_config('role', 'authenticated', false)",
            &[&claims],
        )?;
        Ok(client)
    }
}

/// What a client asked for, and what came of it. Every call has a tag of its own.
#[derive(Default)]
struct Notes {
    asked: usize,
    /// Tags of reveals whose values came.
    revealed: Vec<String>,
    /// Tags of reveals of all three secrets whose values came.
    revealed_all: Vec<String>,
    /// Tags of lists that came.
    listed: Vec<String>,
    /// New secrets: acknowledged, and certainly rolled back.
    committed: Vec<(String, i32)>,
    rolled_back: Vec<String>,
    /// Denials that came, and calls that were to be denied and got no answer.
    denied: i64,
    unanswered: i64,
    /// Calls that were refused because they could not be recorded.
    unrecorded: usize,
    connections: usize,
}

fn work(db: &Database<'_>, user: &User, over: &AtomicBool) -> Notes {
    let mut notes = Notes::default();
    while !over.load(Ordering::SeqCst) {
        let Ok(mut client) = user.try_connect(db) else {
            sleep(Duration::from_millis(20));
            continue;
        };
        notes.connections += 1;
        while !client.is_closed() && !over.load(Ordering::SeqCst) {
            let Err(error) = call(&mut client, user, &mut notes) else { continue };
            let code = error.as_db_error().map(|error| error.code().code().to_owned());
            match code.as_deref() {
                // The connection broke, or somebody ended it.
                None | Some("57P01" | "57P02" | "57P03") => break,
                Some("PT503") => notes.unrecorded += 1,
                Some(_) => panic!("{error:?}"),
            }
        }
    }
    notes
}

/// One of the things that clients do.
fn call(client: &mut Client, user: &User, notes: &mut Notes) -> Result<(), postgres::Error> {
    const GET: &str = "SELECT meshhook_secrets.secret_get($1, $2, purpose => $3)";
    const PUT: &str = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $2)";
    let number = notes.asked;
    notes.asked += 1;
    let tag = format!("T_{}_{number}", user.index);
    let name = NAMES[number % NAMES.len()];
    match number % 10 {
        0 | 2 | 4 => {
            let row = client.query_one(GET, &[&user.project, &name, &tag])?;
            assert_eq!(row.get::<_, &str>(0), name);
            notes.revealed.push(tag);
        }
        1 => {
            let many = "SELECT name, value FROM meshhook_secrets.secret_get_many($1, $2, $3)";
            let rows = client.query(many, &[&user.project, &&NAMES[..], &tag])?;
            let same = |row: &postgres::Row| row.get::<_, &str>(0) == row.get::<_, &str>(1);
            assert!(rows.len() == NAMES.len() && rows.iter().all(same));
            notes.revealed_all.push(tag);
        }
        3 => {
            let version = client.query_one(PUT, &[&user.project, &tag])?.get(0);
            notes.committed.push((tag, version));
        }
        5 => {
            let mut transaction = client.transaction()?;
            let mut versions = Vec::new();
            for _ in 0..2 {
                let row = transaction.query_one(PUT, &[&user.project, &tag])?;
                versions.push((tag.clone(), row.get(0)));
            }
            transaction.commit()?;
            notes.committed.extend(versions);
        }
        6 => {
            // Whatever happens from here on, it is not committed.
            notes.rolled_back.push(tag.clone());
            let mut transaction = client.transaction()?;
            let revealed = transaction.query_one(GET, &[&user.project, &name, &tag]);
            notes.revealed.extend(revealed.is_ok().then(|| tag.clone()));
            revealed?;
            transaction.query_one(PUT, &[&user.project, &tag])?;
            if number.is_multiple_of(20) {
                return transaction.rollback();
            }
            let failed = transaction.query_one("SELECT 1 / 0", &[]);
            let failed = failed.expect_err("division by zero");
            return match failed.as_db_error() {
                Some(error) if error.code().code() == "22012" => Ok(()),
                _ => Err(failed),
            };
        }
        7 => {
            // If it gets no answer it may or may not have been denied.
            notes.unanswered += 1;
            match client.query_one(GET, &[&user.closed, &name, &tag]) {
                Ok(_) => panic!("a stranger reads"),
                Err(error) => match error.as_db_error() {
                    Some(denial) if denial.code().code() == "42501" => {
                        notes.unanswered -= 1;
                        notes.denied += 1;
                    }
                    _ => return Err(error),
                },
            }
        }
        8 => {
            let headers = json!({"x-request-id": tag}).to_string();
            client.query("SELECT set_config('request.headers', $1, false)", &[&headers])?;
            let list = "SELECT name FROM meshhook_secrets.secret_list($1, page_size => 3)";
            assert_eq!(client.query(list, &[&user.project])?.len(), 3);
            notes.listed.push(tag);
            client.query("SELECT set_config('request.headers', '', false)", &[])?;
        }
        _ => {
            client.query("SELECT count(*) FROM public.projects", &[])?;
        }
    }
    Ok(())
}

// --- what the log says ------------------------------------------------------------------------

/// How often each thing is in the log.
#[derive(Default)]
struct Log {
    /// By purpose and name.
    revealed: BTreeMap<(String, String), i64>,
    /// By request id.
    listed: BTreeMap<String, i64>,
    /// By name and version.
    put: BTreeMap<(String, i32), i64>,
    /// By claimed user.
    denied: BTreeMap<String, i64>,
    ids: BTreeSet<i64>,
}

impl Log {
    /// All of it, page by page, and what the server log has instead.
    fn read(cluster: &Cluster, db: &Database<'_>) -> Self {
        let mut log = Log::default();
        let mut auditor = db.connect(AUDITOR);
        let page =
            "SELECT id, action, outcome, purpose, name, version, request_id, claimed_sub, times
            FROM meshhook_secrets.audit_search(after => $1, page_size => 1000)";
        let mut after: Option<i64> = None;
        loop {
            let rows = auditor.query(page, &[&after]).unwrap();
            for row in &rows {
                let id: i64 = row.get::<_, Option<i64>>("id").expect("all is sealed");
                assert!(after.is_none_or(|after| id < after), "newest first");
                assert!(log.ids.insert(id), "{id} is there twice");
                after = Some(id);
                log.add(
                    [row.get("action"), row.get("outcome")],
                    ["purpose", "name", "request_id", "claimed_sub"].map(|column| row.get(column)),
                    row.get("version"),
                    row.get("times"),
                );
            }
            if rows.len() < 1000 {
                break;
            }
        }
        // Failures that there was no room for.
        for line in cluster.log().lines() {
            let Some((_, record)) = line.split_once("meshhook_secrets audit: ") else { continue };
            let record: Value = serde_json::from_str(record).unwrap();
            let text = |key: &str| record[key].as_str();
            assert_ne!(text("outcome"), Some("ok"), "only failures go to the server log: {line}");
            log.add(
                ["action", "outcome"].map(|key| text(key).unwrap()),
                ["purpose", "name", "request_id", "claimed_sub"].map(text),
                None,
                record["times"].as_i64().unwrap_or(1) as i32,
            );
        }
        log
    }

    fn add(
        &mut self,
        [action, outcome]: [&str; 2],
        [purpose, name, request_id, claimed_sub]: [Option<&str>; 4],
        version: Option<i32>,
        times: i32,
    ) {
        let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let times = i64::from(times);
        match (action, outcome) {
            ("secret_get" | "secret_get_many", "ok") => {
                *self.revealed.entry((own(purpose), own(name))).or_default() += times;
            }
            ("secret_get", "denied") => {
                *self.denied.entry(own(claimed_sub)).or_default() += times;
            }
            ("secret_list", "ok") => *self.listed.entry(own(request_id)).or_default() += times,
            ("secret_put", "ok") => {
                *self.put.entry((own(name), version.unwrap())).or_default() += times;
            }
            _ => {}
        }
    }

    fn agrees_with(&self, users: &[User], notes: &[Notes], db: &Database<'_>, mode: &str) {
        // Nothing twice, whether anybody got it or not.
        let twice: Vec<_> = self.revealed.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "reveals that are recorded twice: {twice:?}");
        let twice: Vec<_> = self.listed.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "lists that are recorded twice: {twice:?}");

        let mut superuser = db.superuser();
        let stored = "SELECT s.name, v.version FROM meshhook_secrets.project_secrets s
            JOIN meshhook_secrets.secret_versions v ON v.secret_id = s.id ORDER BY 1, 2";
        let rows = superuser.query(stored, &[]).unwrap();
        // The three secrets of each client are there from the beginning.
        let mut stored: BTreeMap<(String, i32), i64> = BTreeMap::new();
        for row in rows {
            *stored.entry((row.get(0), row.get(1))).or_default() += 1;
        }
        let differing: Vec<_> = stored
            .keys()
            .chain(self.put.keys())
            .filter(|key| stored.get(key) != self.put.get(key))
            .map(|key| (key, stored.get(key), self.put.get(key)))
            .collect();
        assert!(differing.is_empty(), "stored and recorded differently: {differing:?}");

        let mut total = [0; 7];
        for (user, notes) in users.iter().zip(notes) {
            let missing = |tag: &&String, name: &str| {
                !self.revealed.contains_key(&((*tag).clone(), name.to_owned()))
            };
            let lost: Vec<_> = notes
                .revealed
                .iter()
                .filter(|tag| NAMES.iter().all(|name| missing(tag, name)))
                .chain(
                    notes
                        .revealed_all
                        .iter()
                        .filter(|tag| NAMES.iter().any(|name| missing(tag, name))),
                )
                .collect();
            assert!(lost.is_empty(), "revealed and not recorded: {lost:?}");
            let lost: Vec<_> =
                notes.listed.iter().filter(|tag| !self.listed.contains_key(*tag)).collect();
            assert!(lost.is_empty(), "listed and not recorded: {lost:?}");
            for put in &notes.committed {
                assert_eq!(self.put.get(put), Some(&1), "{put:?} is committed");
            }
            for name in &notes.rolled_back {
                assert!(!self.put.contains_key(&(name.clone(), 1)), "{name} was rolled back");
            }
            let denied = self.denied.get(&user.id.to_string()).copied().unwrap_or(0);
            let possible = notes.denied..=notes.denied + notes.unanswered;
            assert!(possible.contains(&denied), "{denied} denials recorded, {possible:?} expected");

            // It did all of it, and lost connections over it.
            let counts = [
                notes.asked,
                notes.revealed.len() + notes.revealed_all.len(),
                notes.committed.len(),
                notes.rolled_back.len(),
                notes.denied as usize,
                notes.listed.len(),
                notes.connections - 1,
            ];
            assert!(counts.iter().all(|count| *count > 0), "client {}: {counts:?}", user.index);
            total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
        let unrecorded: usize = notes.iter().map(|notes| notes.unrecorded).sum();
        println!(
            "{mode}: [asked, revealed, committed, rolled back, denied, listed, reconnected] = \
             {total:?}, {unrecorded} refused, {} records",
            self.ids.len()
        );

        let verify = "SELECT ok, problems, unsealed, records FROM meshhook_secrets.audit_verify()";
        let row = db.connect(AUDITOR).query_one(verify, &[]).unwrap();
        assert!(row.get::<_, bool>("ok"), "{:?}", row.get::<_, Vec<String>>("problems"));
        assert_eq!(row.get::<_, i64>("unsealed"), 0);
        assert!(row.get::<_, i64>("records") >= self.ids.len() as i64);
    }
}
