//! A root key that is missing, wrong or cannot be had seals the secrets and never
//! stops the server; the error says why and what to do; everything opens again as
//! soon as the cause is gone. And whoever may can seal a server or a project.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::types::ToSql;
use support::{
    Account, Cluster, Database, Failure, KEY_A, KEY_B, Shutdown, backend_pid, eventually,
    expect_error, processes, run, server_process, signal,
};
use uuid::Uuid;

/// Computed without our code: Python's `hmac` and `hashlib`, HKDF as in RFC 5869:
/// ```text
/// prk = hmac.new(b"\0" * 32, bytes.fromhex(KEY_A), sha256).digest()
/// okm = hmac.new(prk, b"meshhook_secrets/v1/root-key-fingerprint" + b"\x01", sha256).digest()
/// okm[:8].hex()
/// ```
const FINGERPRINT_A: &str = "971a090d2b412973";
const FINGERPRINT_B: &str = "4dafbcb34290f5e1";
/// [`KEY_A`] in base64, by Python too.
const KEY_A_BASE64: &str = "XR8Me+SpJoMPfVLBqz6YRnwg2fWxboStA8l/LluKYUA=";

/// What a source prints that nobody may see.
const MARKER: &str = "c0ffee-printed-by-the-source";
/// A start that waited for a source would take longer.
const QUICK: Duration = Duration::from_secs(5);

const GET: &str = "SELECT meshhook_secrets.secret_get($1, 'TOKEN')";
const PUT: &str = "SELECT meshhook_secrets.secret_put($1, 'OTHER', 'other value')";

// --- sources that give no key ----------------------------------------------------

#[test]
fn server_starts_sealed_with_any_unusable_root_key_file() {
    type Place = fn(&Path);
    let mut cases: Vec<(&str, Place, &str)> = vec![
        ("missing", |_| {}, "cannot be opened"),
        ("readable by the group", |file| place(file, KEY_A, 0o640), "group or others"),
        ("readable by all", |file| place(file, KEY_A, 0o644), "group or others"),
        ("writable by others", |file| place(file, KEY_A, 0o602), "group or others"),
        ("unreadable", |file| place(file, KEY_A, 0o000), "cannot be opened"),
        ("directory", |file| fs::create_dir(file).unwrap(), "not a regular file"),
        ("named pipe", make_fifo, "not a regular file"),
        ("a digit short", |file| place(file, &KEY_A[1..], 0o600), "line 1"),
        ("two digits long", |file| place(file, &format!("{KEY_A}00"), 0o600), "line 1"),
        ("two keys on a line", |file| place(file, &format!("{KEY_A} {KEY_B}"), 0o600), "line 1"),
        ("garbage", |file| place(file, &format!("# {MARKER}\n{MARKER}"), 0o600), "line 2"),
        ("all zero", |file| place(file, &"0".repeat(64), 0o600), "line 1"),
        ("same key twice", |file| place(file, &format!("{KEY_A}\n{KEY_A}"), 0o600), "line 2"),
        ("empty", |file| place(file, "", 0o600), "no key"),
        ("comments", |file| place(file, &format!("# {KEY_A}\n\n# {MARKER}\n"), 0o600), "no key"),
        ("too many keys", |file| place(file, &different_keys(9), 0o600), "more than 8"),
        ("not UTF-8", |file| place_bytes(file, b"# caf\xe9\n", 0o600), "not text"),
        ("over-long", |file| place(file, &"#\n".repeat(8200), 0o600), "longer than"),
    ];
    if is_root() {
        cases.push(("somebody else's", |file| belongs_to_a_stranger(file), "belongs to neither"));
    } else {
        eprintln!("not root: no file of another user can be made, that case is left out");
    }

    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let file = cluster.root_key_path();
    for (name, place, cause) in cases {
        eprintln!("root key file: {name}");
        cluster.stop(Shutdown::Fast);
        fs::remove_file(&file).unwrap();
        place(&file);
        vault.starts_sealed(cause).hint("reload");

        let _ = fs::remove_dir(&file);
        cluster.write_root_key(KEY_A);
        cluster.reload();
        eventually("the repaired file opens the secrets", || vault.is_readable());
    }
}

#[test]
fn server_starts_sealed_without_a_source_and_with_two() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let file = cluster.root_key_path();

    cluster.set("meshhook_secrets.root_key_file", "");
    cluster.stop(Shutdown::Fast);
    vault.starts_sealed("No root key is configured").hint("root_key_file").hint("reload");

    cluster.set("meshhook_secrets.root_key_command", &format!("cat {}", file.display()));
    cluster.reload();
    eventually("a command instead of a file opens the secrets", || vault.is_readable());

    cluster.set("meshhook_secrets.root_key_file", file.to_str().unwrap());
    cluster.stop(Shutdown::Fast);
    vault.starts_sealed("Both").hint("only one").hint("reload");

    cluster.set("meshhook_secrets.root_key_command", "");
    cluster.reload();
    eventually("the file alone opens the secrets", || vault.is_readable());
}

#[test]
fn server_starts_sealed_whatever_the_root_key_command_does() {
    let hangs = "did not finish within";
    let cases = [
        ("fails", format!("echo {MARKER}; exit 1"), "exit status: 1"),
        ("fails after printing the key", format!("echo {KEY_A}; exit 3"), "exit status: 3"),
        ("is not there", "exec /nonexistent/program".into(), "exit status: 127"),
        ("hangs", "sleep 1000".into(), hangs),
        ("hangs after printing the key", format!("echo {KEY_A}; exec >&-; sleep 1000"), hangs),
        ("ignores SIGTERM", "trap '' TERM HUP INT QUIT; sleep 1000; sleep 1000".into(), hangs),
        ("leaves a child with its output", format!("echo {KEY_A}; sleep 1000 &"), hangs),
        ("prints garbage", format!("echo {MARKER}"), "line 1"),
        ("prints bytes", r"head -c 200 /dev/zero | tr '\0' '\377'".into(), "not text"),
        ("prints megabytes", format!("while :; do echo '# {MARKER}'; done"), "printed more than"),
        ("prints nothing", ":".into(), "no key"),
        ("is killed", "kill -KILL $$".into(), "signal: 9"),
    ];

    let cluster = Cluster::builder().setting("meshhook_secrets.root_key_timeout", "700ms").start();
    let vault = Vault::new(&cluster);
    let source = Source::new(&cluster);
    for (name, script, cause) in cases {
        eprintln!("root key command: {name}");
        cluster.stop(Shutdown::Fast);
        source.does(&script);
        vault.starts_sealed(cause).hint("reload");

        source.prints_key();
        cluster.reload();
        eventually("the repaired command opens the secrets", || vault.is_readable());
        assert_eq!(source.running(), [0; 0], "left running by a command that {name}");
    }
    let log = cluster.log();
    assert!(!log.contains(MARKER) && !log.contains(KEY_A), "output of the command is in {log}");
}

#[test]
fn command_that_cannot_be_run_seals_and_shows_nothing() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    cluster.set("meshhook_secrets.root_key_file", "");
    cluster.set("meshhook_secrets.root_key_command", &format!("no-such-program --{MARKER}"));
    cluster.stop(Shutdown::Fast);
    vault.starts_sealed("exit status: 127").hint("root_key_command");
}

#[test]
fn setting_of_the_source_is_hidden_from_ordinary_roles() {
    let db = Cluster::shared().database();
    for name in ["meshhook_secrets.root_key_file", "meshhook_secrets.root_key_command"] {
        for mut client in [db.user(Uuid::new_v4()), db.service()] {
            expect_error(client.simple_query(&format!("SHOW {name}")), "42501");
            expect_error(client.query("SELECT current_setting($1)", &[&name]), "42501");
            let listed = "SELECT FROM pg_settings WHERE name = $1";
            assert!(client.query(listed, &[&name]).unwrap().is_empty());
            expect_error(client.simple_query(&format!("SET {name} = 'mine'")), "55P02");
        }
    }
    let mut superuser = db.superuser();
    assert!(superuser.simple_query("SHOW meshhook_secrets.root_key_file").is_ok());
}

// --- getting well again -------------------------------------------------------------

#[test]
fn failing_command_is_retried_ever_more_slowly_logged_once_and_heals_by_itself() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let source = Source::new(&cluster);
    cluster.stop(Shutdown::Fast);
    source.does("exit 1");
    let started = Instant::now();
    vault.starts_sealed("exit status: 1");

    eventually("the command is tried three times", || source.runs() >= 3);
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_millis(1500), "three tries within {elapsed:?}");
    assert_eq!(warnings(&cluster, "exit status: 1"), 1, "{}", cluster.log());

    // Another cause is another line.
    source.does("exit 2");
    eventually("the new cause is logged", || warnings(&cluster, "exit status: 2") == 1);
    vault.sealed("exit status: 2");

    // Nobody reloads, nobody calls unseal().
    source.prints_key();
    eventually("the secrets open by themselves", || vault.is_readable());
    assert_eq!(warnings(&cluster, "secrets are sealed"), 2, "{}", cluster.log());
    let opened = format!("secrets are open with root key {FINGERPRINT_A}");
    eventually("opening is logged", || cluster.log().matches(&opened).count() == 2);
}

#[test]
fn unseal_opens_at_once_when_the_source_is_fixed_and_says_why_when_not() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    cluster.write_root_key("nonsense");
    cluster.stop(Shutdown::Fast);
    vault.starts_sealed("line 1");
    let mut keeper = vault.keeper();

    // Failing again and again pushes the next try of the worker away, so that
    // only unseal() can be what opens.
    for _ in 0..4 {
        let failure = expect_error(keeper.query("SELECT meshhook_secrets.unseal()", &[]), "PT503");
        failure.detail("line 1").hint("reload").hides("nonsense");
    }
    vault.sealed("line 1");
    cluster.write_root_key(KEY_A);
    let asked = Instant::now();
    keeper.query("SELECT meshhook_secrets.unseal()", &[]).unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "unseal() took {:?}", asked.elapsed());
    assert!(vault.is_readable());
    assert!(!vault.status().sealed);
}

#[test]
fn another_root_key_adds_nothing_to_the_data_of_the_right_one() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let (written, empty) = (db.project(Uuid::new_v4()), db.project(Uuid::new_v4()));
    let mut superuser = db.superuser();
    superuser.query("SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'x')", &[&written]).unwrap();
    cluster.write_root_key(KEY_B);
    cluster.reload();
    eventually("the other key is loaded", || {
        let missing = "SELECT FROM meshhook_secrets.root_key_status() WHERE NOT is_loaded";
        !superuser.query(missing, &[]).unwrap().is_empty()
    });
    let generate = superuser.query("SELECT meshhook_secrets.kek_generate()", &[]);
    expect_error(generate, "PT503").detail(FINGERPRINT_A).hint(FINGERPRINT_A);
    let count = "SELECT count(*) FROM meshhook_secrets.kek_storage";
    assert_eq!(superuser.query_one(count, &[]).unwrap().get::<_, i64>(0), 1);
    // Nor can a project without secrets get its first one.
    for project in [written, empty] {
        let sealed = "SELECT sealed FROM meshhook_secrets.project_seal_status($1)";
        assert!(superuser.query_one(sealed, &[&project]).unwrap().get::<_, bool>(0));
        let put = "SELECT meshhook_secrets.secret_put($1, 'OTHER', 'x')";
        expect_error(superuser.query(put, &[&project]), "PT503");
    }
}

#[test]
fn reload_that_comes_while_the_worker_is_away_is_not_missed() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let mut superuser = db.superuser();
    for sealed in [true, false] {
        let before = worker(&cluster).expect("it runs");
        match sealed {
            true => fs::remove_file(cluster.root_key_path()).unwrap(),
            false => cluster.write_root_key(KEY_A),
        }
        // For a second it is not started again.
        signal(before, "TERM");
        eventually("the worker is gone", || worker(&cluster) != Some(before));
        cluster.reload();
        let asked = "SELECT sealed FROM meshhook_secrets.seal_status()";
        eventually("the source was read", || {
            superuser.query_one(asked, &[]).unwrap().get::<_, bool>(0) == sealed
        });
        eventually("the worker is back", || worker(&cluster).is_some());
    }
}

#[test]
fn reload_that_a_crash_meets_is_answered_after_it_and_an_answered_one_not_again() {
    let cluster = Cluster::builder().setting("meshhook_secrets.root_key_timeout", "60s").start();
    let vault = Vault::new(&cluster);
    let source = Source::new(&cluster);
    let hangs = cluster.dir().join("hangs");
    source.does(&format!(": >{}; sleep 1000", hangs.display()));
    cluster.reload();
    eventually("the command hangs", || hangs.exists());
    source.does(&format!("echo {KEY_B}; echo {KEY_A}"));
    crash(&cluster, &mut vault.member());
    let loaded = || root_keys(&vault.db).contains(&key(FINGERPRINT_A, false, true, 1));
    eventually("the new key is the current one", loaded);

    // The worker that lives on answers a reload too; a source that is gone is then nobody's business.
    source.prints_key();
    cluster.reload();
    eventually("the old key is alone again", || !loaded());
    let runs = source.runs();
    source.does("exit 1");
    let before = worker(&cluster);
    crash(&cluster, &mut vault.member());
    eventually("the worker is back", || worker(&cluster).is_some_and(|pid| Some(pid) != before));
    sleep(Duration::from_millis(500));
    assert!(vault.is_readable() && source.runs() == runs, "looked at without need");
}

#[test]
fn reload_with_repaired_setting_does_not_wait_for_a_command_that_still_hangs() {
    let cluster = Cluster::builder().setting("meshhook_secrets.root_key_timeout", "60s").start();
    let vault = Vault::new(&cluster);
    let source = Source::new(&cluster);
    cluster.stop(Shutdown::Fast);
    source.does("sleep 1000");
    vault.starts();
    eventually("the command runs", || !source.running().is_empty());

    source.prints_key();
    cluster.reload();
    let reloaded = Instant::now();
    eventually("the repaired command opens the secrets", || vault.is_readable());
    assert!(reloaded.elapsed() < Duration::from_secs(10), "took {:?}", reloaded.elapsed());
    assert_eq!(source.running(), [0; 0]);
}

#[test]
fn calls_right_after_the_start_wait_for_a_slow_command() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let source = Source::new(&cluster);
    let printed = cluster.dir().join("printed");
    cluster.stop(Shutdown::Fast);
    source.does(&format!("sleep 2; echo {KEY_A}; : >{}", printed.display()));
    vault.starts();

    let mut member = vault.member();
    assert!(!printed.exists(), "the start took as long as the command");
    let status = vault.status();
    assert!(status.sealed && status.cause.contains("being fetched"), "{status:?}");
    assert_eq!(text(&mut member, GET, &[&vault.project]), "value");
    assert!(printed.exists());
}

// --- commands that hang ---------------------------------------------------------------

#[test]
fn hanging_command_is_killed_at_its_timeout_with_all_its_children() {
    let cluster = Cluster::builder().setting("meshhook_secrets.root_key_timeout", "2s").start();
    let vault = Vault::new(&cluster);
    let source = Source::new(&cluster);
    cluster.stop(Shutdown::Fast);
    source.does("trap '' TERM; sleep 1000 & (sleep 1000 & sleep 1000) & sleep 1000");
    vault.starts();
    eventually("the command and its children run", || source.running().len() >= 5);

    let first = source.running();
    vault.sealed("did not finish within meshhook_secrets.root_key_timeout");
    // It is tried again, but of the first try nothing is left.
    let now = source.running();
    assert!(!first.iter().any(|pid| now.contains(pid)), "{first:?} and then {now:?}");
}

#[test]
fn hanging_command_does_not_delay_a_fast_shutdown() {
    let cluster = Cluster::builder().setting("meshhook_secrets.root_key_timeout", "60s").start();
    let vault = Vault::new(&cluster);
    let source = Source::new(&cluster);
    cluster.stop(Shutdown::Fast);
    source.does("trap '' TERM; sleep 1000; sleep 1000");
    vault.starts();
    eventually("the command runs", || source.running().len() >= 2);
    // Somebody waits for it.
    let waiting = std::thread::spawn({
        let mut member = vault.member();
        let project = vault.project;
        move || member.query(GET, &[&project]).is_err()
    });
    sleep(Duration::from_millis(300));

    let stopped = Instant::now();
    cluster.stop(Shutdown::Fast);
    assert!(stopped.elapsed() < Duration::from_secs(4), "stop took {:?}", stopped.elapsed());
    assert_eq!(source.running(), [0; 0], "the command outlives the server");
    assert!(waiting.join().unwrap());
    cluster.start();
}

#[test]
fn hanging_command_does_not_outlive_a_server_that_is_stopped_immediately_or_killed() {
    let cluster = Cluster::builder().setting("meshhook_secrets.root_key_timeout", "60s").start();
    let vault = Vault::new(&cluster);
    let source = Source::new(&cluster);
    // The command itself; no process of the server is left that could see to its children.
    source.does("exec sleep 1000");
    for how in ["immediate", "killed"] {
        cluster.stop(Shutdown::Fast);
        vault.starts();
        eventually("the command runs", || source.running().len() == 1);
        match how {
            "immediate" => cluster.stop(Shutdown::Immediate),
            _ => signal(cluster.postmaster_pid(), "KILL"),
        }
        eventually(&format!("the command ends with the server ({how})"), || {
            source.running().is_empty()
        });
        eventually("the server can be started again", || cluster.try_start().is_ok());
    }
}

// --- wrong and further keys --------------------------------------------------------------

#[test]
fn wrong_key_names_the_one_that_is_needed_and_changes_nothing() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let empty_project = vault.db.project(vault.alice);
    assert_eq!(root_keys(&vault.db), [key(FINGERPRINT_A, true, true, 1)]);

    cluster.write_root_key(KEY_B);
    cluster.restart();
    let before = content(&vault.db);
    let needed = |failure: Failure| {
        failure.detail(FINGERPRINT_A).detail(FINGERPRINT_B).hint(FINGERPRINT_A).hint("reload")
    };
    eventually("key B is loaded", || root_keys(&vault.db).iter().any(|key| key.is_loaded));
    needed(vault.refusal(GET));
    needed(vault.refusal(PUT));
    // A project that has no data key yet must not get one under the wrong key either.
    needed(expect_error(vault.member().query(PUT, &[&empty_project]), "PT503"));
    assert_eq!(
        root_keys(&vault.db),
        [key(FINGERPRINT_B, true, true, 0), key(FINGERPRINT_A, false, false, 1)]
    );
    assert_eq!(content(&vault.db), before);

    cluster.write_root_key(KEY_A);
    cluster.reload();
    eventually("the right key opens the secrets", || vault.is_readable());
}

#[test]
fn previous_keys_still_open_and_new_keks_use_the_first() {
    let cluster = Cluster::builder().start();
    let old = Vault::new(&cluster);
    let other = cluster.database();
    // The same key as base64, with all that a careful operator writes.
    cluster.write_root_key(&format!("# new\n{KEY_B}  # since today\r\n\n{KEY_A_BASE64}\r\n"));
    cluster.reload();
    let both = [key(FINGERPRINT_B, true, true, 0), key(FINGERPRINT_A, false, true, 1)];
    eventually("both keys are loaded", || root_keys(&old.db) == both);
    assert!(old.is_readable());
    text(&mut old.member(), PUT, &[&old.project]);

    let alice = Uuid::new_v4();
    let project = other.project(alice);
    text(&mut other.user(alice), PUT, &[&project]);
    let new = [key(FINGERPRINT_B, true, true, 1), key(FINGERPRINT_A, false, true, 0)];
    assert_eq!(root_keys(&other), new);

    // Each database needs its own key, and one that lacks it does not touch the other.
    cluster.write_root_key(KEY_B);
    cluster.reload();
    eventually("key A is gone", || root_keys(&old.db).iter().any(|key| !key.is_loaded));
    old.refusal(GET).detail(FINGERPRINT_A).hint(FINGERPRINT_A);
    let get = "SELECT meshhook_secrets.secret_get($1, 'OTHER')";
    assert_eq!(text(&mut other.user(alice), get, &[&project]), "other value");
    // Key A may still be needed for an audit key there: the database is a copy of one that had it.
    let needed = root_keys(&other);
    assert_eq!(needed[0], key(FINGERPRINT_B, true, true, 1));
    assert!(needed[1..].iter().all(|key| key.keks == 0), "{needed:?}");
}

// --- seal() ---------------------------------------------------------------------------------

#[test]
fn seal_takes_effect_at_once_everywhere_and_lasts_until_unseal() {
    let cluster = Cluster::builder().start();
    let (here, there) = (Vault::new(&cluster), Vault::new(&cluster));
    let (mut here_warm, mut there_warm) = (here.member(), there.member());
    let mut service = there.db.service();
    let cause = "An operator called meshhook_secrets.seal().";
    let refused = |client: &mut Client, project: &Uuid| {
        let failure = expect_error(client.query(GET, &[project]), "PT503");
        failure.message("secrets are sealed").detail(cause).hint("unseal()");
    };
    for client in [&mut there_warm, &mut service] {
        assert_eq!(text(client, GET, &[&there.project]), "value");
    }
    assert_eq!(text(&mut here_warm, GET, &[&here.project]), "value");

    let mut keeper = here.keeper();
    keeper.query("SELECT meshhook_secrets.seal()", &[]).unwrap();
    refused(&mut here_warm, &here.project);
    refused(&mut there_warm, &there.project);
    refused(&mut service, &there.project);
    here.sealed(cause);
    there.sealed(cause);
    assert_eq!(root_keys(&here.db), [key(FINGERPRINT_A, false, false, 1)]);

    // A reload does not lift it.
    cluster.reload();
    sleep(Duration::from_millis(500));
    refused(&mut here_warm, &here.project);

    // Nor does the crash of a process, after which the server starts over.
    crash(&cluster, &mut there_warm);
    here.sealed(cause);
    there.sealed(cause);
    sleep(Duration::from_millis(500));
    here.sealed(cause);

    // unseal() does.
    here.keeper().query("SELECT meshhook_secrets.unseal()", &[]).unwrap();
    assert!(here.is_readable() && there.is_readable());

    // And so does a restart of the server.
    here.keeper().query("SELECT meshhook_secrets.seal()", &[]).unwrap();
    here.sealed(cause);
    cluster.restart();
    assert!(here.is_readable() && there.is_readable());
}

#[test]
fn everything_that_needs_no_key_works_while_sealed_and_the_rest_changes_nothing() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let project = vault.project;
    let mut member = vault.member();
    member
        .batch_execute(&format!(
            "SELECT meshhook_secrets.secret_put('{project}', 'TOKEN', 'value');
             SELECT meshhook_secrets.secret_put('{project}', 'SOON', 'x', expires_at => now() + '1 day');
             SELECT meshhook_secrets.secret_put('{project}', 'DELETED', 'x');
             SELECT meshhook_secrets.secret_delete('{project}', 'DELETED');"
        ))
        .unwrap();
    vault.keeper().query("SELECT meshhook_secrets.seal()", &[]).unwrap();

    let before = content(&vault.db);
    for call in [
        "secret_get($1, 'TOKEN')",
        "secret_get($1, 'TOKEN', version => 1)",
        "secret_get_bytes($1, 'TOKEN')",
        "secret_get_many($1)",
        "secret_get_many($1, ARRAY['TOKEN'])",
        "secret_put($1, 'TOKEN', 'new')",
        "secret_put($1, 'NEW', 'new')",
        "secret_put_bytes($1, 'NEW', 'new')",
        "secret_generate($1, 'NEW')",
        "secret_rollback($1, 'TOKEN', 1)",
        "secret_delete($1, 'TOKEN')",
        "secret_undelete($1, 'DELETED')",
        "secret_expire($1, 'TOKEN', now())",
    ] {
        let result = member.query(&format!("SELECT meshhook_secrets.{call}"), &[&project]);
        assert!(result.is_err(), "{call} works while sealed");
        expect_error(result, "PT503").detail("seal()").hint("unseal()");
    }
    assert_eq!(content(&vault.db), before);

    let mut rows = |call: &str| {
        let query = format!("SELECT * FROM meshhook_secrets.{call}");
        member.query(&query, &[&project]).unwrap_or_else(|error| panic!("{call}: {error:?}")).len()
    };
    assert_eq!(rows("secret_list($1)"), 2);
    assert_eq!(rows("secret_list($1, include_deleted => true)"), 3);
    assert_eq!(rows("secret_describe($1, 'TOKEN')"), 1);
    assert_eq!(rows("secret_versions($1, 'TOKEN')"), 2);
    assert_eq!(rows("secret_due($1)"), 1);
    assert_eq!(rows("secret_purge($1, 'SOON', confirm => 'SOON')"), 1);
    assert_eq!(rows("secret_list($1)"), 1);
}

#[test]
fn sealed_project_is_sealed_alone_and_durably() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let sealed = vault.project;
    let other = vault.db.project(vault.alice);
    let mut member = vault.member();
    text(&mut member, PUT, &[&other]);
    let refused = |client: &mut Client, statement: &str| {
        let failure = expect_error(client.query(statement, &[&sealed]), "PT503");
        failure.message("secrets are sealed").detail("project is sealed").hint("unseal(project_id)")
    };

    let mut keeper = vault.keeper();
    let seal = "SELECT meshhook_secrets.seal($1)";
    let unseal = "SELECT meshhook_secrets.unseal($1)";
    keeper.query(seal, &[&sealed]).unwrap();
    keeper.query(seal, &[&sealed]).unwrap();
    for restart in [false, true] {
        if restart {
            cluster.restart();
            member = vault.member();
        }
        let before = content(&vault.db);
        refused(&mut member, GET);
        refused(&mut member, PUT);
        refused(&mut member, "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'new')");
        refused(&mut member, "SELECT meshhook_secrets.secret_generate($1, 'NEW')");
        refused(&mut member, "SELECT meshhook_secrets.secret_delete($1, 'TOKEN')");
        refused(&mut member, "SELECT * FROM meshhook_secrets.secret_get_many($1)");
        refused(&mut vault.db.service(), GET);
        assert_eq!(content(&vault.db), before);

        let list = "SELECT * FROM meshhook_secrets.secret_list($1)";
        assert_eq!(member.query(list, &[&sealed]).unwrap().len(), 1);
        text(&mut member, PUT, &[&other]);
        let get = "SELECT meshhook_secrets.secret_get($1, 'OTHER')";
        assert_eq!(text(&mut member, get, &[&other]), "other value");
        let status = vault.status();
        assert!(!status.sealed, "the server itself is open: {status:?}");
        assert_eq!(status.sealed_projects, 1);
    }

    // Opening the server does not open the project.
    let mut keeper = vault.keeper();
    keeper.query("SELECT meshhook_secrets.unseal()", &[]).unwrap();
    refused(&mut member, GET);
    // A seal that is rolled back never was.
    let mut transaction = keeper.transaction().unwrap();
    transaction.query(unseal, &[&sealed]).unwrap();
    transaction.rollback().unwrap();
    refused(&mut member, GET);

    keeper.query(unseal, &[&sealed]).unwrap();
    assert_eq!(text(&mut member, GET, &[&sealed]), "value");
    text(&mut member, PUT, &[&sealed]);
    assert_eq!(vault.status().sealed_projects, 0);
    keeper.query(unseal, &[&sealed]).unwrap();
    assert!(vault.is_readable());

    // While the server is sealed, projects can be neither sealed nor unsealed.
    keeper.query("SELECT meshhook_secrets.seal()", &[]).unwrap();
    let before = content(&vault.db);
    for statement in [seal, unseal] {
        let failure = expect_error(keeper.query(statement, &[&sealed]), "PT503");
        failure.detail("seal()").hint("unseal()");
    }
    assert_eq!(content(&vault.db), before);
}

#[test]
fn members_are_told_whether_their_project_is_sealed() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let (mut member, mut keeper) = (vault.member(), vault.keeper());
    let untouched = vault.db.project(vault.alice);
    let mut ask = |project: Uuid| -> (bool, Option<String>, Option<String>) {
        let status = "SELECT sealed, cause, remedy FROM meshhook_secrets.project_seal_status($1)";
        let row = member.query_one(status, &[&project]).unwrap();
        (row.get(0), row.get(1), row.get(2))
    };
    let open = (false, None, None);
    assert_eq!((ask(vault.project), ask(untouched)), (open.clone(), open.clone()));

    // The answer is what a reveal says, and asking changes nothing.
    let mut revealing = vault.member();
    let mut sealed = |answer: (bool, Option<String>, Option<String>)| {
        let refused = expect_error(revealing.query(GET, &[&vault.project]), "PT503");
        assert_eq!(answer, (true, Some(refused.detail), Some(refused.hint)));
    };
    keeper.query("SELECT meshhook_secrets.seal($1)", &[&vault.project]).unwrap();
    sealed(ask(vault.project));
    assert_eq!(ask(untouched), open);
    keeper.query("SELECT meshhook_secrets.unseal($1)", &[&vault.project]).unwrap();
    keeper.query("SELECT meshhook_secrets.seal()", &[]).unwrap();
    sealed(ask(vault.project));
    assert!(ask(untouched).0);
    keeper.query("SELECT meshhook_secrets.unseal()", &[]).unwrap();
    assert_eq!((ask(vault.project), ask(untouched)), (open.clone(), open));
    keeper.query("SELECT meshhook_secrets.kek_disable(1)", &[]).unwrap();
    sealed(ask(vault.project));
    assert_eq!(ask(untouched).1.unwrap(), "No KEK is active.");

    for mut stranger in [vault.db.user(Uuid::new_v4()), vault.db.anon()] {
        let status = "SELECT * FROM meshhook_secrets.project_seal_status($1)";
        expect_error(stranger.query(status, &[&vault.project]), "42501");
    }
    // Pages ask while they wait: only refusals are worth a record.
    let recorded = "SELECT DISTINCT outcome FROM meshhook_secrets.audit_search(action => 'project_seal_status')";
    let recorded = vault.db.superuser().query(recorded, &[]).unwrap();
    assert_eq!(recorded.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["denied"]);
}

#[test]
fn sealing_an_unknown_project_is_an_error() {
    let db = Cluster::shared().database();
    let mut keeper = keeper(&db);
    for function in ["seal", "unseal"] {
        let statement = format!("SELECT meshhook_secrets.{function}($1)");
        let failure = expect_error(keeper.query(&statement, &[&Uuid::new_v4()]), "PT404");
        assert!(!failure.detail.is_empty() && !failure.hint.is_empty(), "{failure:?}");
    }
}

#[test]
fn only_kek_admins_may_seal_unseal_and_ask() {
    // Were one of them let through, it would seal the server: not the shared one.
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let clients = [
        ("anon", vault.db.anon()),
        ("authenticated", vault.member()),
        ("service_role", vault.db.service()),
        ("writer", vault.db.connect(&role_in(&vault.db, "meshhook_secrets_writer"))),
        ("reader", vault.db.connect(&role_in(&vault.db, "meshhook_secrets_reader"))),
    ];
    for (who, mut client) in clients {
        for call in [
            "seal()".to_owned(),
            "unseal()".to_owned(),
            format!("seal('{}')", vault.project),
            format!("unseal('{}')", vault.project),
            "seal_status()".to_owned(),
            "root_key_status()".to_owned(),
        ] {
            let result = client.query(&format!("SELECT * FROM meshhook_secrets.{call}"), &[]);
            assert!(result.is_err(), "{who} may call {call}");
            expect_error(result, "42501");
        }
    }
    assert!(vault.is_readable());
    assert_eq!(vault.status().sealed_projects, 0);

    // And a KEK admin reads no secret.
    for statement in [GET, PUT] {
        expect_error(vault.keeper().query(statement, &[&vault.project]), "42501");
    }
}

#[test]
fn status_tells_how_keys_are_protected_and_since_when() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let mut keeper = vault.keeper();
    let mut row = || {
        keeper
            .query_one(
                "SELECT sealed, cause, remedy, since <= clock_timestamp()
                        AND since > clock_timestamp() - interval '5 minutes', key_memory, since::text
                 FROM meshhook_secrets.seal_status()",
                &[],
            )
            .unwrap()
    };
    let open = row();
    assert!(!open.get::<_, bool>(0));
    assert_eq!(open.get::<_, Option<String>>(1), None);
    assert_eq!(open.get::<_, Option<String>>(2), None);
    assert!(open.get::<_, bool>(3));
    let memory: String = open.get(4);
    assert!(["memfd_secret", "mlock", "madvise"].contains(&memory.as_str()), "{memory}");
    let warned = cluster.log().contains("memfd_secret is not available");
    assert_eq!(warned, memory != "memfd_secret", "{memory}\n{}", cluster.log());

    vault.keeper().query("SELECT meshhook_secrets.seal()", &[]).unwrap();
    let sealed = row();
    assert!(sealed.get::<_, bool>(0) && sealed.get::<_, bool>(3));
    assert_ne!(sealed.get::<_, String>(5), open.get::<_, String>(5));
}

// --- the worker ------------------------------------------------------------------------------

#[test]
fn terminated_worker_comes_back_and_works() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let first = worker(&cluster).expect("the worker runs");
    signal(first, "TERM");
    eventually("the worker ends", || worker(&cluster) != Some(first));
    // Nobody misses it.
    assert!(vault.is_readable());
    // unseal() waits until it is back.
    vault.keeper().query("SELECT meshhook_secrets.unseal()", &[]).unwrap();
    let second = worker(&cluster).expect("the worker is back");
    assert_ne!(first, second);
    assert!(vault.is_readable());

    // The new one is told about changes as the old one was.
    cluster.write_root_key("nonsense");
    let unseal = vault.keeper().query("SELECT meshhook_secrets.unseal()", &[]);
    expect_error(unseal, "PT503").detail("line 1");
    cluster.write_root_key(KEY_A);
    vault.keeper().query("SELECT meshhook_secrets.unseal()", &[]).unwrap();
    assert!(vault.is_readable());
}

#[test]
fn killed_worker_restarts_the_server_and_the_keys_are_there_at_once() {
    let cluster = Cluster::builder().start();
    let vault = Vault::new(&cluster);
    let source = Source::new(&cluster);
    cluster.reload();
    eventually("the command is the source", || source.runs() > 0 && vault.is_readable());
    // From now on the source needs longer than any call waits.
    source.does("sleep 20");
    let first = worker(&cluster).expect("the worker runs");
    let mut witness = vault.db.superuser();
    signal(first, "KILL");
    eventually("the server noticed the crash", || witness.simple_query("SELECT 1").is_err());
    eventually("the server is back", || cluster.try_connect("postgres", "postgres").is_ok());
    let asked = Instant::now();
    assert!(vault.is_readable());
    assert!(asked.elapsed() < Duration::from_secs(2), "waited {:?}", asked.elapsed());
    eventually("the worker is back", || worker(&cluster).is_some_and(|pid| pid != first));
    assert!(vault.is_readable());
}

// --- helpers -----------------------------------------------------------------------------------

/// A database with one secret, `TOKEN` = `value`.
struct Vault<'c> {
    db: Database<'c>,
    alice: Uuid,
    project: Uuid,
    keeper: String,
}

#[derive(Debug)]
struct Status {
    sealed: bool,
    cause: String,
    remedy: String,
    sealed_projects: i64,
}

impl<'c> Vault<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let db = cluster.database();
        let alice = Uuid::new_v4();
        let project = db.project(alice);
        let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'value')";
        text(&mut db.user(alice), put, &[&project]);
        let keeper = role_in(&db, "meshhook_secrets_kek_admin");
        Self { db, alice, project, keeper }
    }

    fn member(&self) -> Client {
        self.db.user(self.alice)
    }

    fn keeper(&self) -> Client {
        self.db.connect(&self.keeper)
    }

    fn is_readable(&self) -> bool {
        match self.member().query_one(GET, &[&self.project]) {
            Ok(row) => row.get::<_, String>(0) == "value",
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("PT503"), "{error:?}");
                false
            }
        }
    }

    fn status(&self) -> Status {
        let row = self
            .keeper()
            .query_one("SELECT * FROM meshhook_secrets.seal_status()", &[])
            .expect("seal_status() needs no key");
        let text = |name| row.get::<_, Option<String>>(name).unwrap_or_default();
        Status {
            sealed: row.get("sealed"),
            cause: text("cause"),
            remedy: text("remedy"),
            sealed_projects: row.get("sealed_projects"),
        }
    }

    /// Starts the stopped server, which must not wait for any source.
    fn starts(&self) {
        let started = Instant::now();
        self.db.cluster().start();
        assert!(started.elapsed() < QUICK, "start took {:?}", started.elapsed());
    }

    /// Starts the stopped server, which must be sealed for this cause, and only
    /// its secrets.
    fn starts_sealed(&self, cause: &str) -> Failure {
        let logged = self.db.cluster().log().len();
        self.starts();
        let sum = "CREATE TEMP TABLE t AS SELECT generate_series(1, 10) AS i; SELECT sum(i) FROM t";
        assert!(self.db.superuser().batch_execute(sum).is_ok());
        let failure = self.sealed(cause);
        let log = self.db.cluster().log()[logged..].to_owned();
        let line = format!("WARNING:  meshhook_secrets: secrets are sealed: {}", failure.detail);
        assert_eq!(log.matches(&line).count(), 1, "{line:?} once in {log}");
        for hidden in [MARKER, KEY_A] {
            assert!(!log.contains(hidden), "{hidden} is in {log}");
        }
        failure
    }

    /// Reads and writes are refused for this cause, and the status says so too.
    fn sealed(&self, cause: &str) -> Failure {
        let before = content(&self.db);
        let failure = self.refusal(GET);
        self.refusal(PUT).detail(cause);
        assert_eq!(content(&self.db), before);
        let status = self.status();
        assert!(status.sealed);
        assert_eq!((&status.cause, &status.remedy), (&failure.detail, &failure.hint));
        failure.message("secrets are sealed").detail(cause)
    }

    fn refusal(&self, statement: &str) -> Failure {
        let failure = expect_error(self.member().query(statement, &[&self.project]), "PT503");
        assert!(!failure.detail.is_empty() && !failure.hint.is_empty(), "{failure:?}");
        let dir = self.db.cluster().dir().to_str().unwrap().to_owned();
        failure.hides(MARKER).hides(KEY_A).hides(&KEY_A[1..]).hides(&dir)
    }
}

/// A script as root key command. It counts how often it is run, and its `sleep` is
/// one of its own, by which its processes are known.
struct Source<'c> {
    cluster: &'c Cluster,
}

impl<'c> Source<'c> {
    /// Makes the script, which prints [`KEY_A`], the source at the next reload or start.
    fn new(cluster: &'c Cluster) -> Self {
        let source = Self { cluster };
        let sleep = run(Command::new("sh").args(["-c", "command -v sleep"]));
        symlink(sleep.trim(), cluster.dir().join("sleep")).unwrap();
        source.prints_key();
        cluster.set("meshhook_secrets.root_key_file", "");
        let command = format!("exec sh {}", source.script());
        cluster.set("meshhook_secrets.root_key_command", &command);
        source
    }

    fn prints_key(&self) {
        self.does(&format!("echo {KEY_A}"));
    }

    fn does(&self, script: &str) {
        let dir = self.cluster.dir();
        let path = format!("export PATH={}:$PATH; echo >>{}/runs", dir.display(), dir.display());
        let new = dir.join("source.new");
        // sleep by its path: this is what the process is known by.
        let script = script.replace("sleep ", &format!("{}/sleep ", dir.display()));
        place(&new, &format!("{path}\n{script}\n"), 0o644);
        fs::rename(new, self.script()).unwrap();
    }

    fn script(&self) -> String {
        self.cluster.dir().join("source.sh").to_str().unwrap().to_owned()
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.cluster.dir().join("runs")).unwrap_or_default().lines().count()
    }

    /// The processes of the command.
    fn running(&self) -> Vec<i32> {
        let names = [self.script(), format!("{}/sleep", self.cluster.dir().display())];
        let is_one = |line: &str| names.iter().any(|name| line.contains(name));
        processes().into_iter().filter(|(_, line)| is_one(line)).map(|(pid, _)| pid).collect()
    }
}

#[derive(Debug, PartialEq)]
struct Key {
    id: String,
    is_current: bool,
    is_loaded: bool,
    keks: i64,
}

fn key(id: &str, is_current: bool, is_loaded: bool, keks: i64) -> Key {
    Key { id: id.into(), is_current, is_loaded, keks }
}

fn root_keys(db: &Database<'_>) -> Vec<Key> {
    let rows = keeper(db).query("SELECT * FROM meshhook_secrets.root_key_status()", &[]).unwrap();
    rows.iter()
        .map(|row| Key {
            id: row.get("root_key_id"),
            is_current: row.get("is_current"),
            is_loaded: row.get("is_loaded"),
            keks: row.get("keks"),
        })
        .collect()
}

/// Everything that is stored, to compare.
fn content(db: &Database<'_>) -> String {
    let mut superuser = db.superuser();
    let tables = ["kek_storage", "data_keys", "project_secrets", "secret_versions", "settings"];
    let hash = |table| {
        let query = format!(
            "SELECT coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '') FROM meshhook_secrets.{table} t"
        );
        text(&mut superuser, &query, &[])
    };
    tables.map(hash).join(" ")
}

/// A role that is a member of this one alone, and may log in.
fn role_in(db: &Database<'_>, group: &str) -> String {
    let name = format!("{}_{}", &group[17..], Uuid::new_v4().simple());
    db.superuser().batch_execute(&format!("CREATE ROLE {name} LOGIN IN ROLE {group}")).unwrap();
    name
}

/// A member of `meshhook_secrets_kek_admin`.
fn keeper(db: &Database<'_>) -> Client {
    db.connect(&role_in(db, "meshhook_secrets_kek_admin"))
}

fn text(client: &mut Client, statement: &str, arguments: &[&(dyn ToSql + Sync)]) -> String {
    let statement = format!("SELECT x::text FROM ({statement}) AS q(x)");
    let row = client.query_one(&statement, arguments);
    row.unwrap_or_else(|error| panic!("{statement}: {error:?}")).get(0)
}

/// The process id of the root key worker.
fn worker(cluster: &Cluster) -> Option<i32> {
    server_process(cluster.postmaster_pid(), "meshhook_secrets root key")
}

/// Kills the process behind a connection; the server starts over.
fn crash(cluster: &Cluster, victim: &mut Client) {
    let mut witness = cluster.connect("postgres", "postgres");
    signal(backend_pid(victim), "KILL");
    eventually("the server noticed the crash", || witness.simple_query("SELECT 1").is_err());
    eventually("the server is back", || cluster.try_connect("postgres", "postgres").is_ok());
}

/// How many warnings of the server contain this.
fn warnings(cluster: &Cluster, part: &str) -> usize {
    let log = cluster.log();
    log.lines().filter(|line| line.contains("WARNING:") && line.contains(part)).count()
}

fn place(file: &Path, content: &str, mode: u32) {
    place_bytes(file, content.as_bytes(), mode);
}

fn place_bytes(file: &Path, content: &[u8], mode: u32) {
    fs::write(file, content).unwrap();
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
    Account::of_server().own(file);
}

fn make_fifo(file: &Path) {
    run(Command::new("mkfifo").args(["-m", "600"]).arg(file));
    Account::of_server().own(file);
}

fn belongs_to_a_stranger(file: &Path) {
    place(file, KEY_A, 0o644);
    chown(file, Some(54321), Some(54321)).unwrap();
}

fn different_keys(count: usize) -> String {
    (0..count).map(|at| format!("{}{at:02x}\n", &KEY_A[2..])).collect()
}

fn is_root() -> bool {
    run(Command::new("id").arg("-u")).trim() == "0"
}
