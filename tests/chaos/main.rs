//! Chaos: several sessions of all roles call everything in a random order, while processes die, the
//! server ends, the root key is gone and the clock jumps. A model in memory says what each call must
//! answer, what must be stored, and what must be in the audit log.
//!
//! A seed decides what happens; it is printed with every failure. `CHAOS_SEED` repeats one, `CHAOS_STEPS`
//! makes it longer, `CHAOS_MINUTES` (`make soak MINUTES=20`) goes on with one seed after the other. When
//! exactly a fault strikes is up to the machine: what comes after it may differ from run to run.

mod callers;
mod check;
mod clock;
mod expect;
mod faults;
mod ledger;
mod model;
mod operations;
mod proxy;
mod random;
mod steps;
mod unanswered;
mod world;

use std::fs;
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use callers::{AUDITOR, Caller, KEK_ADMIN, WITNESS};
use clock::Clock;
use faults::{FAULTS, Fault};
use support::audit::{make_role, writer_pid};
use support::{Cluster, KEY_A, KEY_B, eventually, expect_error, server_process, signal};
use uuid::Uuid;
use world::World;

/// Steps between two faults.
const CALM: usize = 40;

#[test]
fn a_fixed_seed() {
    live(4, number("CHAOS_STEPS").unwrap_or(400), false);
}

#[test]
fn a_random_seed() {
    let end =
        number("CHAOS_MINUTES").map(|it| Instant::now() + Duration::from_secs(60 * it as u64));
    let steps = number("CHAOS_STEPS").unwrap_or(600);
    loop {
        live(number("CHAOS_SEED").map_or_else(any_seed, |seed| seed as u64), steps, false);
        if end.is_none_or(|end| Instant::now() > end) {
            return;
        }
    }
}

#[test]
fn a_clock_that_jumps() {
    let end =
        number("CHAOS_MINUTES").map(|it| Instant::now() + Duration::from_secs(60 * it as u64));
    let steps = number("CHAOS_STEPS").unwrap_or(300);
    loop {
        live(number("CHAOS_SEED").map_or_else(any_seed, |seed| seed as u64), steps, true);
        if end.is_none_or(|end| Instant::now() > end) {
            return;
        }
    }
}

/// What is only waited for does not go by the clock: else a clock that is set back by hours would have
/// everybody wait for hours.
#[test]
fn a_clock_that_is_set_back_keeps_nobody_waiting() {
    let (cluster, mut clock) = start(true);
    let owner = Uuid::from_u128(1);
    let db = cluster.database();
    let project = db.project(owner);
    let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'value')";
    let get = "SELECT meshhook_secrets.secret_get($1, 'TOKEN')";
    clock.jump(7200);
    let mut service = db.service();
    service.query(put, &[&project]).expect("service_role may");
    service.query(get, &[&project]).expect("service_role may");

    // Who waits for a record.
    let patience = "ALTER SYSTEM SET meshhook_secrets.audit_timeout = '3s'";
    db.superuser().batch_execute(patience).expect("superuser may");
    cluster.reload();
    let mut superuser = db.superuser();
    eventually("the setting counts", || {
        let shown = superuser.query_one("SHOW meshhook_secrets.audit_timeout", &[]);
        shown.expect("anybody may").get::<_, &str>(0) == "3s"
    });
    let writer = writer_pid(&db);
    signal(writer, "STOP");
    let (answer, answered) = channel();
    let mut waiting = db.service();
    spawn(move || answer.send(waiting.query(get, &[&project])));
    eventually("it waits", || {
        let waiting = "SELECT FROM pg_stat_activity
            WHERE wait_event = 'Extension' AND query LIKE '%secret_get($1%'";
        !superuser.query(waiting, &[]).expect("superuser may").is_empty()
    });
    clock.jump(-7200);
    // PostgreSQL's own timeouts go by the clock too, and would not end it.
    let refused = answered.recv_timeout(Duration::from_secs(60)).expect("it ends before long");
    signal(writer, "CONT");
    expect_error(refused, "PT503");

    // Who wants the database, where the writer lingers.
    service.query(get, &[&project]).expect("service_role may");
    clock.jump(7200);
    service.query(get, &[&project]).expect("service_role may");
    clock.jump(-7200);
    drop((service, superuser));
    let drop = format!("DROP DATABASE {}", db.name());
    cluster.connect("postgres", "postgres").batch_execute(&drop).expect("nobody stays in it");
}

/// A clock that is set back hides no reload that came while the root key worker was away; and where none came, a source that
/// is gone does no harm.
#[test]
fn a_clock_that_is_set_back_hides_no_reload() {
    let (cluster, mut clock) = start(true);
    let db = cluster.database();
    let project = db.project(Uuid::from_u128(1));
    let mut service = db.service();
    let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'value')";
    service.query(put, &[&project]).expect("service_role may");
    let loaded = |keys: usize| {
        let asked =
            "SELECT FROM meshhook_secrets.root_key_status() WHERE is_loaded AND NOT is_current";
        eventually("the source was read", || {
            db.superuser().query(asked, &[]).expect("superuser may").len() == keys
        });
    };
    // Later reloads seem to be earlier than this one.
    clock.jump(7200);
    let both = format!("{KEY_B}\n{KEY_A}");
    cluster.write_root_key(&both);
    cluster.reload();
    loaded(1);
    clock.jump(-7200);
    let worker = || server_process(cluster.postmaster_pid(), "meshhook_secrets root key");
    let end = || {
        let before = worker().expect("it runs");
        signal(before, "TERM");
        eventually("the worker is gone", || worker() != Some(before));
    };

    fs::remove_file(cluster.root_key_path()).expect("it is there");
    end();
    eventually("the worker is back", || worker().is_some());
    sleep(Duration::from_millis(500));
    let get = "SELECT meshhook_secrets.secret_get($1, 'TOKEN')";
    service.query(get, &[&project]).expect("nobody asked for this look");

    cluster.write_root_key(KEY_A);
    end();
    cluster.reload();
    loaded(0);
}

fn live(seed: u64, steps: usize, clock_jumps: bool) {
    println!("CHAOS_SEED={seed} CHAOS_STEPS={steps}");
    let (cluster, clock) = start(clock_jumps);
    let db = cluster.database();
    make_role(&cluster, KEK_ADMIN, "LOGIN IN ROLE meshhook_secrets_kek_admin");
    make_role(&cluster, WITNESS, "LOGIN SUPERUSER");
    make_role(&cluster, AUDITOR, "LOGIN BYPASSRLS IN ROLE meshhook_secrets_auditor");
    // The first KEK would be made by the first write, which may be undone: here it is there from the start.
    let first = "SELECT meshhook_secrets.kek_rotate()";
    db.superuser().batch_execute(first).expect("superuser may");
    let user = |number| Caller::User(Uuid::from_u128(number));
    let callers = vec![
        Caller::Superuser,
        Caller::Service,
        Caller::Service,
        user(1),
        user(2),
        user(3),
        Caller::Anon,
        Caller::KekAdmin,
        Caller::Auditor,
    ];
    let mut world = World::new(&db, clock, seed, callers);
    let users = world.users.clone();
    for owner in &users {
        world.add_project(*owner).expect("no fault yet");
    }
    let projects: Vec<Uuid> = world.state.projects.keys().copied().collect();
    for (project, user) in projects.into_iter().zip(users.iter().cycle().skip(1)) {
        world.let_in(project, *user).expect("no fault yet");
    }
    let mut faults = FAULTS.to_vec();
    if clock_jumps {
        faults = faults.iter().flat_map(|fault| [Fault::ClockJump, *fault]).collect();
    }
    let first = world.random.below(faults.len());
    let mut faults = faults.iter().cycle().skip(first);
    for step in 1..=steps {
        if world.step().is_err() {
            world.diverged("cut off without a fault");
        }
        if step % CALM == 0 {
            world.strike(*faults.next().expect("they go round"));
            world.check();
        }
    }
    world.finish();
}

/// A server with few versions kept, patience for a busy machine, and logs that would tell values.
fn start(clock_jumps: bool) -> (Cluster, Clock) {
    let versions = model::MAX_VERSIONS.to_string();
    let mut builder = Cluster::builder()
        .setting("meshhook_secrets.max_versions", &versions)
        .setting("meshhook_secrets.audit_timeout", "30s")
        .setting("log_parameter_max_length_on_error", "-1")
        .setting("log_statement", "all");
    if !clock_jumps {
        return (builder.start(), Clock::default());
    }
    let library = Clock::library();
    builder = builder
        .environment("LD_PRELOAD", library.to_str().expect("ASCII"))
        .environment("DONT_FAKE_MONOTONIC", "1")
        .environment("FAKETIME_NO_CACHE", "1")
        // In the data directory, where the server's processes are.
        .environment("FAKETIME_TIMESTAMP_FILE", "clock");
    let cluster = builder.create();
    let clock = Clock::settable(cluster.data_dir().join("clock"));
    cluster.start();
    (cluster, clock)
}

fn number(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20)
}
