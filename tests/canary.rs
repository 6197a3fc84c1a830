//! The canary hunt: values that come into the server in every way there is, and are then looked for
//! everywhere. Everything that can be logged is logged, in all three formats, with auto_explain and
//! pgaudit; pg_stat_statements keeps every statement. The same hunt on a server without our library,
//! where functions of the same names do nothing, finds canaries in all of these places.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use memchr::memmem;
use postgres::error::ErrorPosition;
use postgres::{Client, Config, NoTls};
use support::{
    Cluster, Database, KEY_A, Shutdown, backend_pid, eventually, expect_error, processes, signal,
};
use uuid::Uuid;

// --- the ways -------------------------------------------------------------------------------------

/// A way: its name, and what it does with the canary. What the server answers is its own business.
type Way = (&'static str, fn(&mut Hunt, &str));

const WAYS: &[Way] = &[
    ("literal", |h, c| h.run(&format!("SELECT {}", h.put(&format!("'{c}'"))))),
    ("named argument", |h, c| {
        h.run(&format!(
            "SELECT * FROM meshhook_secrets.secret_put(project_id => '{}', name => 'N', value => '{c}')",
            h.project
        ))
    }),
    ("bind parameter", |h, c| h.bind("SELECT meshhook_secrets.secret_put($1, 'N', $2)", c)),
    ("prepared statement", |h, c| {
        let project = h.project;
        let put = h.client().prepare("SELECT meshhook_secrets.secret_put($1, 'N', $2)").unwrap();
        for _ in 0..7 {
            let _ = h.client().query(&put, &[&project, &c]);
        }
    }),
    ("PREPARE with the literal", |h, c| {
        h.run(&format!("PREPARE p AS SELECT {}", h.put(&format!("'{c}'"))));
        h.superuser.batch_execute("SELECT public.pg_stat_statements_reset()").unwrap();
        h.run("EXECUTE p");
    }),
    ("EXECUTE with the literal", |h, c| {
        h.run("PREPARE p (uuid, text) AS SELECT meshhook_secrets.secret_put($1, 'N', $2)");
        h.run(&format!("EXECUTE p('{}', '{c}')", h.project));
    }),
    ("EXECUTE at the wrong place", |h, c| {
        h.run("PREPARE p (uuid, text) AS SELECT meshhook_secrets.secret_put($1, 'N', $2)");
        h.run(&format!("EXECUTE p('{c}', 'x')"));
        h.run(&format!("EXECUTE p('x', '{c}'"));
    }),
    ("syntax error behind it", |h, c| h.run(&format!("SELECT {} FRO M", h.put(&format!("'{c}'"))))),
    ("syntax error at it", |h, c| h.run(&format!("SELECT secret_put(p, 'N' '{c}')"))),
    ("unterminated literal", |h, c| {
        h.run(&format!("SELECT meshhook_secrets.secret_put(p, 'N', '{c})"))
    }),
    ("double quotes", |h, c| h.run(&format!("SELECT {}", h.put(&format!("\"{c}\""))))),
    ("no quotes", |h, c| {
        // What is no literal is masked where the error repeats it.
        h.run(&format!("SET log_statement = none; SET pgaudit.log = none; SELECT {}", h.put("1")));
        let _ = h.superuser.batch_execute("SELECT 1");
        h.run(&format!("SELECT {}", h.put(&format!("'{c}'::nosuchtype"))));
    }),
    ("literal of the wrong type", |h, c| {
        h.run(&format!("SELECT meshhook_secrets.secret_put('{c}', 'N', 'x')"))
    }),
    ("parameter of the wrong type", |h, c| {
        h.bind("SELECT meshhook_secrets.secret_put($1, 'N', $2), $2::uuid", c)
    }),
    ("number out of range", |h, c| {
        h.run(&format!("SELECT {}, '{c}'::int", h.put("'x'")));
    }),
    ("escape string", |h, c| h.run(&format!("SELECT {}", h.put(&format!("E'it\\'s {c}'"))))),
    ("Unicode string", |h, c| h.run(&format!("SELECT {}", h.put(&format!("U&'\\0041{c}'"))))),
    ("dollar quotes", |h, c| h.run(&format!("SELECT {}", h.put(&format!("$k$it's {c}$k$"))))),
    ("continued literal", |h, c| h.run(&format!("SELECT {}", h.put(&format!("E'a'\n'\\'{c}'"))))),
    ("backslashes that escape", |h, c| {
        h.run("SET standard_conforming_strings = off; SET escape_string_warning = off");
        h.run(&format!("SELECT {}", h.put(&format!("'it\\'s {c}'"))));
    }),
    ("behind comments", |h, c| {
        h.run(&format!("SELECT /* it's */ {} -- don't", h.put(&format!("'{c}'"))))
    }),
    ("bytes", |h, c| {
        let value = hex(c.as_bytes());
        h.run(&format!(
            "SELECT meshhook_secrets.secret_put_bytes('{}', 'N', '\\x{value}')",
            h.project
        ));
    }),
    ("JSON literal", |h, c| {
        h.run(&format!("SELECT {}", h.put(&format!("'{{\"v\": \"{c}\"}}'::json ->> 'v'"))))
    }),
    ("broken JSON literal", |h, c| {
        h.run(&format!("SELECT {}", h.put(&format!("'{{\"v\": \"x\", {c}}}'::json ->> 'v'"))))
    }),
    ("broken XML", |h, c| {
        h.run(&format!("SELECT {}", h.put(&format!("xmlparse(document '{c}')::text"))))
    }),
    ("broken pattern", |h, c| h.run(&format!("SELECT {}, 'x' ~ '{c}['", h.put("'x'")))),
    ("function that there is not", |h, c| {
        h.run(&format!("SELECT meshhook_secrets.secret_put('{c}', 1, 2, 3, 4, 5, 6, 7, 8, 9)"))
    }),
    ("several statements", |h, c| {
        h.run(&format!("SELECT 1; SELECT {}; SELECT 2", h.put(&format!("'{c}'"))))
    }),
    ("behind a statement that fails", |h, c| {
        h.run(&format!("SELECT 1/0; SELECT {}", h.put(&format!("'{c}'"))))
    }),
    ("in a failed transaction", |h, c| {
        h.run("BEGIN; SELECT 1/0");
        h.run(&format!("SELECT {}", h.put(&format!("'{c}'"))));
        h.bind("SELECT meshhook_secrets.secret_put($1, 'N', $2)", c);
        h.run("ROLLBACK");
    }),
    ("cas that does not match", |h, c| {
        h.run(&format!(
            "SELECT meshhook_secrets.secret_put('{}', 'N', '{c}', cas => 99)",
            h.project
        ))
    }),
    ("no right", |h, c| {
        let put = format!("SELECT {}", h.put(&format!("'{c}'")));
        h.other = Some(h.db.anon());
        let _ = h.other.as_mut().unwrap().batch_execute(&put);
    }),
    ("too long", |h, c| {
        h.run(&format!("SELECT {}", h.put(&format!("repeat('{c}', 5000)"))));
        h.bind("SELECT meshhook_secrets.secret_put($1, 'N', $2)", &c.repeat(3000));
    }),
    ("DO", |h, c| h.run(&format!("DO $$ BEGIN PERFORM {}; END $$", h.put(&format!("'{c}'"))))),
    ("DO that fails", |h, c| {
        h.run(&format!(
            "DO $$ BEGIN PERFORM {}; PERFORM '{c}'::int; END $$",
            h.put(&format!("'{c}'"))
        ))
    }),
    ("DO with dynamic SQL", |h, c| {
        h.run(&format!(
            "DO $$ BEGIN EXECUTE format('SELECT meshhook_secrets.secret_put(%L, ''N'', %L) FRO M',
                '{}', '{c}'); END $$",
            h.project
        ))
    }),
    ("CALL", |h, c| h.run(&format!("CALL public.store_call('{}', '{c}')", h.project))),
    ("COPY of a query", |h, c| {
        let copy = format!("COPY (SELECT {}) TO STDOUT", h.put(&format!("'{c}'")));
        if let Ok(mut reader) = h.client().copy_out(&copy) {
            let _ = reader.read_to_end(&mut Vec::new());
        }
    }),
    ("COPY into a table with a trigger", |h, c| {
        for line in [format!("{}\tN\t{c}\n", h.project), format!("{}\tN\n", c)] {
            let copy = "COPY public.inbox (project, name, value) FROM STDIN";
            let mut writer = h.client().copy_in(copy).unwrap();
            let _ = writer.write_all(line.as_bytes());
            let _ = writer.finish();
        }
    }),
    ("trigger", |h, c| {
        h.run(&format!("INSERT INTO public.inbox VALUES ('{}', 'N', '{c}')", h.project))
    }),
    ("cursor", |h, c| {
        h.run(&format!("BEGIN; DECLARE c CURSOR FOR SELECT {}", h.put(&format!("'{c}'"))));
        h.run("FETCH c");
        h.run("COMMIT");
    }),
    ("cursor that fails", |h, c| {
        h.run(&format!(
            "BEGIN; DECLARE c CURSOR FOR SELECT v::int, {} FROM (VALUES ('1'), ('{c}')) t(v)",
            h.put("v")
        ));
        h.run("FETCH ALL c");
        h.run("ROLLBACK");
    }),
    ("holdable cursor", |h, c| {
        h.run(&format!(
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT v::int, {} FROM (VALUES ('1'), ('{c}')) t(v)",
            h.put("v")
        ));
        h.run("COMMIT");
    }),
    ("CREATE TABLE AS", |h, c| {
        h.run(&format!("CREATE TEMP TABLE t AS SELECT 1 FROM {}", h.put(&format!("'{c}'"))))
    }),
    ("EXPLAIN", |h, c| {
        for options in ["", "(VERBOSE)", "(ANALYZE, VERBOSE, FORMAT JSON)"] {
            h.run(&format!("EXPLAIN {options} SELECT {}", h.put(&format!("'{c}'"))));
        }
    }),
    ("wrapper in PL/pgSQL", |h, c| {
        h.run(&format!("SELECT public.store_key('{}', '{c}')", h.project));
        h.bind("SELECT public.store_key($1, $2)", c);
    }),
    ("wrapper in SQL", |h, c| {
        h.run(&format!("SELECT public.store_sql('{}', '{c}')", h.project));
        h.bind("SELECT public.store_sql($1, $2)", c);
    }),
    ("wrapper that raises", |h, c| {
        h.run(&format!("SELECT public.store_key('{}', '{c}', true)", h.project));
        h.bind("SELECT public.store_key($1, $2, true)", c);
    }),
    ("wrapper that raises before", |h, c| {
        h.run(&format!("SELECT public.refuse_key('{c}')"));
        h.bind("SELECT public.refuse_key($2), $1::uuid", c);
    }),
    ("wrapper that raises what escapes mean", |h, c| {
        let (middle, bytes) = (c.len() / 2, c.bytes());
        let by = |start: &str| -> String {
            bytes.clone().map(|it| format!("{start}{it:02x}")).collect()
        };
        let octal: String = bytes.clone().map(|it| format!("\\{it:o}")).collect();
        for literal in [
            format!("E'{}'", by("\\x")),
            format!("E'{octal}'"),
            format!("E'{}'", by("\\u00")),
            format!("E'{}'", by("\\U000000")),
            format!("U&'{}'", by("\\00")),
            format!("U&'{}'", by("\\+0000")),
            format!("U&'{}' UESCAPE '!'", by("!00")),
            format!("E'{}\\x{:x}{}'", &c[..middle], c.as_bytes()[middle], &c[middle + 1..]),
        ] {
            h.run(&format!("SELECT public.refuse_key({literal})"));
        }
    }),
    ("PostgREST", |h, c| {
        let body =
            format!("{{\"project_id\": \"{}\", \"name\": \"N\", \"value\": \"{c}\"}}", h.project);
        h.body(&body);
    }),
    ("PostgREST with a broken body", |h, c| {
        h.body(&format!(
            "{{\"project_id\": \"{}\", \"name\": \"N\", \"value\": {c}\"}}",
            h.project
        ));
        h.body(&format!("{{\"project_id\": \"{c}\", \"name\": \"N\", \"value\": \"{c}\"}}"));
    }),
    ("revealed and cast", |h, c| {
        h.keep(c);
        h.run(&format!("SELECT meshhook_secrets.secret_get('{}', 'N')::int", h.project));
        h.bind_project("SELECT meshhook_secrets.secret_get($1, 'N')::uuid");
    }),
    ("revealed and raised", |h, c| {
        h.keep(c);
        for level in ["NOTICE", "LOG", "EXCEPTION"] {
            h.run(&format!(
                "DO $$ BEGIN RAISE {level} 'it is %', upper(meshhook_secrets.secret_get('{}', 'N'))
                    USING DETAIL = meshhook_secrets.secret_get('{}', 'N'); END $$",
                h.project, h.project
            ));
        }
    }),
    ("revealed into a row that is refused", |h, c| {
        h.keep(c);
        h.bind_project("INSERT INTO public.small SELECT meshhook_secrets.secret_get($1, 'N')");
        h.bind_project(
            "INSERT INTO public.small SELECT value FROM meshhook_secrets.secret_get_many($1)",
        );
    }),
    ("cancelled", |h, c| {
        h.sleeping(
            &format!("SELECT pg_sleep(60), {}", h.put(&format!("'{c}'"))),
            "pg_cancel_backend",
        )
    }),
    ("cancelled after it ran", |h, c| {
        h.sleeping(
            &format!("SELECT {}, pg_sleep(60)", h.put(&format!("'{c}'"))),
            "pg_cancel_backend",
        )
    }),
    ("timed out", |h, c| {
        h.run(&format!(
            "SET statement_timeout = 50; SELECT {}, pg_sleep(60)",
            h.put(&format!("'{c}'"))
        ))
    }),
    ("terminated", |h, c| {
        h.sleeping(
            &format!("SELECT pg_sleep(60), {}", h.put(&format!("'{c}'"))),
            "pg_terminate_backend",
        )
    }),
    ("printed trees", |h, c| {
        let put = h.put(&format!("'{c}'"));
        let _ = h.superuser_of().batch_execute(&format!(
            "SET debug_print_parse = on; SET debug_print_rewritten = on; SET debug_print_plan = on;
             SELECT {put}"
        ));
    }),
];

// --- the hunts ------------------------------------------------------------------------------------

#[test]
fn no_canary_is_found_anywhere() {
    let cluster = server("pg_stat_statements, pgaudit, auto_explain, meshhook_secrets");
    let db = cluster.database();
    let found = hunt(&db, Some(()));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_canary_is_found_where_the_others_are_loaded_later() {
    let cluster = server("meshhook_secrets, pg_stat_statements, pgaudit, auto_explain");
    let db = cluster.database();
    let found = hunt(&db, Some(()));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn without_our_library_the_hunt_finds_them() {
    let cluster = server("pg_stat_statements, pgaudit, auto_explain");
    let db = cluster.empty_database();
    db.superuser().batch_execute(STAND_IN).unwrap();
    let found = hunt(&db, None);
    let in_place = |place: &str| {
        found.iter().filter(|(_, places)| places.iter().any(|it| it.starts_with(place))).count()
    };
    for (way, _) in WAYS {
        let places = found.get(way).unwrap_or_else(|| panic!("{way}: not found"));
        assert!(places.iter().any(|place| place.starts_with("log ")), "{way}: {places:?}");
    }
    for (place, least) in [
        ("log stderr", 50),
        ("log csv", 50),
        ("log json", 50),
        ("pg_stat_activity", 30),
        ("pg_stat_statements", 3),
        ("core", 1),
    ] {
        assert!(in_place(place) >= least, "{place}: {}", in_place(place));
    }
}

/// Goes all the ways and returns where which canary was found.
fn hunt(db: &Database<'_>, ours: Option<()>) -> BTreeMap<&'static str, Vec<String>> {
    assert!(WAYS.len() >= 30);
    let tag = format!("kanari{}", &Uuid::new_v4().simple().to_string()[..10]);
    let mut hunt = Hunt::new(db, ours.is_some());
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let slot = "SELECT pg_create_logical_replication_slot('hunt', 'test_decoding')";
    hunt.superuser.batch_execute(slot).unwrap();
    for (number, (name, way)) in WAYS.iter().enumerate() {
        let canary = format!("{tag}w{number:02}{tag}");
        hunt.connect();
        way(&mut hunt, &canary);
        let shown = hunt.activity();
        if mentions(&shown, &tag) {
            found.entry(name).or_default().push(String::from("pg_stat_activity"));
        }
        let statements: String = hunt
            .superuser
            .query("SELECT query FROM public.pg_stat_statements", &[])
            .unwrap()
            .iter()
            .map(|row| row.get::<_, String>(0))
            .collect();
        if mentions(statements.as_bytes(), &tag) {
            let line = statements.lines().find(|line| line.contains(&tag)).unwrap_or_default();
            found.entry(name).or_default().push(format!("pg_stat_statements: {line}"));
            hunt.superuser.batch_execute("SELECT public.pg_stat_statements_reset()").unwrap();
        }
    }
    let decoded = "SELECT coalesce(string_agg(data, ' '), '') FROM
        pg_logical_slot_peek_changes('hunt', NULL, NULL)";
    let decoded: String = hunt.superuser.query_one(decoded, &[]).unwrap().get(0);
    assert!(decoded.contains("COMMIT"), "{decoded}");
    let cores = cores(&mut hunt, &tag, ours.is_some());
    hunt.superuser.batch_execute("SELECT pg_drop_replication_slot('hunt'); CHECKPOINT").unwrap();
    drop(hunt);
    db.cluster().stop(Shutdown::Fast);

    let mut note = |bytes: &[u8], place: &str| {
        for (number, line) in traces(bytes, &tag) {
            let name = number.and_then(|number| WAYS.get(number)).map_or("?", |way| way.0);
            let places = found.entry(name).or_default();
            if !places.iter().any(|it| it.starts_with(place)) {
                places.push(format!("{place}: {line}"));
            }
        }
    };
    note(decoded.as_bytes(), "logical decoding");
    for (place, core) in cores {
        note(&core, &place);
    }
    for file in files(db.cluster().dir()) {
        let bytes = fs::read(&file).unwrap_or_default();
        let path = file.to_string_lossy().into_owned();
        let place = match file.extension().and_then(|it| it.to_str()) {
            Some("csv") => "log csv",
            Some("json") => "log json",
            _ if path.contains("/log") => "log stderr",
            _ => &path,
        };
        note(&bytes, place);
    }
    found
}

/// What a process other than the one that served a value has in memory; and of that one, how often
/// the value is there.
fn cores(hunt: &mut Hunt, tag: &str, ours: bool) -> Vec<(String, Vec<u8>)> {
    let cluster = hunt.db.cluster();
    let root_key: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&KEY_A[at * 2..at * 2 + 2], 16).unwrap()).collect();
    // The one that served: a write as a literal, one as a parameter, and a reveal.
    hunt.connect();
    let canary = format!("{tag}w99{tag}");
    hunt.run(&format!("SELECT {}", hunt.put(&format!("'{canary}'"))));
    hunt.bind("SELECT meshhook_secrets.secret_put($1, 'N', $2)", &canary);
    hunt.bind_project("SELECT meshhook_secrets.secret_get($1, 'N')");
    let serving = backend_pid(hunt.client());

    let postmaster = cluster.postmaster_pid();
    let parent = format!("PPid:\t{postmaster}\n");
    let is_child = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|it| it.contains(&parent))
    };
    let mut cores = Vec::new();
    for (pid, title) in processes() {
        if pid != postmaster && !is_child(pid) {
            continue;
        }
        let Some(core) = core_of(cluster, pid) else { continue };
        assert!(memmem::find(&core, &root_key).is_none(), "root key in {title}");
        if pid == serving {
            let count = memmem::find_iter(&core, canary.as_bytes()).count();
            println!("{count} copies of the value in the process that served it");
            assert!(ours || count > 0);
        } else {
            cores.push((format!("core of {}", title.trim_end_matches(['\0', ' '])), core));
        }
    }
    assert!(cores.len() >= 5, "{} processes", cores.len());
    cores
}

// --- what stays -----------------------------------------------------------------------------------

#[test]
fn the_client_gets_the_whole_error() {
    let (db, alice) = (Cluster::shared().database(), Uuid::new_v4());
    let project = db.project(alice);
    let mut user = db.user(alice);
    let canary = format!("canary-{}", Uuid::new_v4());

    let sql = format!("SELECT meshhook_secrets.secret_put('{canary}', 'N', 'x')");
    let error = user.batch_execute(&sql).unwrap_err();
    let it = error.as_db_error().unwrap();
    assert_eq!(it.message(), format!("invalid input syntax for type uuid: \"{canary}\""));
    assert_eq!(it.position(), Some(&ErrorPosition::Original(36)));

    user.batch_execute("SET log_parameter_max_length_on_error = -1").unwrap();
    let sql = "SELECT meshhook_secrets.secret_put($1, 'N', $2), $2::int";
    let error = user.query(sql, &[&project, &canary]).unwrap_err();
    let it = error.as_db_error().unwrap();
    assert_eq!(it.message(), format!("invalid input syntax for type integer: \"{canary}\""));
    let parameters = format!("unnamed portal with parameters: $1 = '{project}', $2 = '{canary}'");
    assert_eq!(it.where_(), Some(&*parameters));

    let sql = format!(
        "DO $$ BEGIN PERFORM meshhook_secrets.secret_put('{project}', 'N', '{canary}');
         RAISE 'not %', '{canary}' USING DETAIL = '{canary}', HINT = '{canary}', CONSTRAINT = 'k'; END $$"
    );
    let error = user.batch_execute(&sql).unwrap_err();
    let it = error.as_db_error().unwrap();
    assert_eq!(it.message(), format!("not {canary}"));
    assert_eq!((it.detail(), it.hint()), (Some(&*canary), Some(&*canary)));
    assert_eq!(it.constraint(), Some("k"));
    assert_eq!(it.where_(), Some("PL/pgSQL function inline_code_block line 2 at RAISE"));

    let log = db.cluster().log();
    assert!(!log.contains(&canary), "the canary is in the log");
    for line in [
        "22P02 authenticator@",
        "invalid input syntax for type uuid: \"***\" at character 36",
        "CONTEXT:  unnamed portal with parameters: $1 = '***', $2 = '***'",
        "STATEMENT:  SELECT meshhook_secrets.secret_put($1, '***', $2), $2::int",
        "ERROR:  ***",
        "CONTEXT:  PL/pgSQL function inline_code_block line 2 at RAISE",
        "STATEMENT:  DO $$***$$",
    ] {
        assert!(log.contains(line), "{line:?} is not in the log");
    }
}

#[test]
fn the_client_gets_notices_as_they_are() {
    let (db, alice) = (Cluster::shared().database(), Uuid::new_v4());
    let project = db.project(alice);
    let canary = format!("canary-{}", Uuid::new_v4());
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut client = Config::new()
        .host_path(db.cluster().dir())
        .dbname(db.name())
        .user("postgres")
        .notice_callback(move |notice| sender.send(notice.message().to_owned()).unwrap())
        .connect(NoTls)
        .unwrap();
    let sql = format!(
        "SET log_min_messages = notice;
         DO $$ BEGIN PERFORM meshhook_secrets.secret_put('{project}', 'N', '{canary}');
         RAISE NOTICE 'stored %', '{canary}'; END $$"
    );
    client.batch_execute(&sql).unwrap();
    assert_eq!(receiver.try_recv().unwrap(), format!("stored {canary}"));
    let log = db.cluster().log();
    assert!(log.contains("NOTICE:  ***") && !log.contains(&canary));
}

#[test]
fn a_mention_in_a_comment_hides_no_statement() {
    let db = Cluster::shared().database();
    let mut superuser = db.superuser();
    let marker = format!("m{}", Uuid::new_v4().simple());
    let sql = format!("DROP TABLE {marker} /* secret_put, don't log */, x CASCADE -- 'secret_get'");
    expect_error(superuser.batch_execute(&sql), "42P01");
    let log = db.cluster().log();
    assert!(log.contains(&format!("STATEMENT:  {sql}")), "the statement is not in the log");
    // Without a mention, nothing changes.
    let sql = format!("SELECT '{marker}'::int, \"Column\"");
    expect_error(superuser.batch_execute(&sql), "22P02");
    assert!(db.cluster().log().contains(&format!("STATEMENT:  {sql}")));
    // The flag of a value that went through is gone with its statement.
    let project = db.project(Uuid::new_v4());
    let put = "SELECT meshhook_secrets.secret_put($1, 'N', 'x')";
    superuser.query(put, &[&project]).unwrap();
    let sql = format!("SELECT '{marker}2'::int");
    expect_error(superuser.batch_execute(&sql), "22P02");
    assert!(db.cluster().log().contains(&format!("STATEMENT:  {sql}")));
}

#[test]
fn lines_keep_their_shape_in_every_format() {
    let cluster = Cluster::builder()
        .setting("logging_collector", "on")
        .setting("log_destination", "stderr,csvlog,jsonlog")
        .start();
    let db = cluster.database();
    let sql = "SELECT 'é', meshhook_secrets.secret_get('canary', 'N')";
    expect_error(db.superuser().batch_execute(sql), "22P02");
    let masked = "SELECT '***', meshhook_secrets.secret_get('***', '***')";
    let json = || {
        let log = cluster.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.into_iter().find(|line: &serde_json::Value| line["statement"] == masked)
    };
    eventually("the line is in the log", || json().is_some());
    let line = json().unwrap();
    assert_eq!(line["error_severity"], "ERROR");
    assert_eq!(line["state_code"], "22P02");
    assert_eq!(line["message"], "invalid input syntax for type uuid: \"***\"");
    assert_eq!(line["cursor_position"], 43);
    assert_eq!(line["dbname"], db.name());
    assert_eq!(line["backend_type"], "client backend");
    let log = cluster.log();
    let csv = format!(
        ",ERROR,22P02,\"invalid input syntax for type uuid: \"\"***\"\"\",,,,,,\"{masked}\",43,,"
    );
    assert!(log.contains(&csv), "no such line: {csv}");
    let line = log.lines().find(|line| line.contains("ERROR:  invalid")).unwrap();
    assert!(line.ends_with("ERROR:  invalid input syntax for type uuid: \"***\" at character 43"));
    let statement =
        log.lines().find(|line| line.contains("STATEMENT:  SELECT '***', mesh")).unwrap();
    assert!(statement.ends_with(masked), "{statement}");
    // Once in each: the original is not logged besides.
    assert_eq!(log.matches("ERROR:  invalid input").count(), 1);
    assert!(!log.contains("'canary'"));
}

#[test]
fn a_statement_that_is_bound_and_not_run_is_shown_masked() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let (mut client, mut superuser) = (db.superuser(), db.superuser());
    let pid = backend_pid(&mut client);
    let project = db.project(Uuid::new_v4());
    let sql = format!("SELECT meshhook_secrets.secret_put('{project}', 'N', 'canary') WHERE $1");
    let statement = client.prepare(&sql).unwrap();
    client.batch_execute("SELECT 1").unwrap();
    let mut transaction = client.transaction().unwrap();
    let _portal = transaction.bind(&statement, &[&false]).unwrap();
    let shown = "SELECT query FROM pg_stat_activity WHERE pid = $1";
    let shown: String = superuser.query_one(shown, &[&pid]).unwrap().get(0);
    assert_eq!(shown, "SELECT meshhook_secrets.secret_put('***', '***', '***') WHERE $1");
}

#[test]
fn a_literal_that_is_shown_in_part_is_masked() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let (mut client, mut superuser) = (db.superuser(), db.superuser());
    let pid = backend_pid(&mut client);
    let value = "canary".repeat(500_000);
    let sql = format!(
        "SELECT 1 WHERE 'a' = 'b' AND meshhook_secrets.secret_put(NULL, 'N', '{value}') IS NULL"
    );
    client.batch_execute(&sql).unwrap();
    let shown = "SELECT query FROM pg_stat_activity WHERE pid = $1";
    let shown: String = superuser.query_one(shown, &[&pid]).unwrap().get(0);
    let start = "SELECT *** WHERE '***' = '***' AND meshhook_secrets.secret_put(NULL, '***', '***";
    assert_eq!(shown, start);
}

#[test]
fn a_killed_process_leaves_no_literal() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let project = db.project(Uuid::new_v4());
    let mut client = db.superuser();
    let pid = backend_pid(&mut client);
    let canary = format!("canary-{}", Uuid::new_v4());
    let sql =
        format!("SELECT meshhook_secrets.secret_put('{project}', 'N', '{canary}'), pg_sleep(60)");
    let thread = std::thread::spawn(move || client.batch_execute(&sql));
    let mut superuser = db.superuser();
    let sleeps = "SELECT query FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
    let mut shown = String::new();
    eventually("it sleeps", || match superuser.query_opt(sleeps, &[&pid]).unwrap() {
        Some(row) => {
            shown = row.get(0);
            true
        }
        None => false,
    });
    let masked = "SELECT meshhook_secrets.secret_put('***', '***', '***'), pg_sleep(***)";
    assert_eq!(shown, masked);
    signal(pid, "KILL");
    thread.join().unwrap().unwrap_err();
    let detail = format!("DETAIL:  Failed process was running: {masked}");
    eventually("the crash is logged", || cluster.log().contains(&detail));
    assert!(!cluster.log().contains(&canary));
}

#[test]
fn the_names_of_the_hosts_functions_are_read_again_at_reload() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let mut superuser = db.superuser();
    let sql = "SELECT public.hand_on('canary')";
    expect_error(superuser.batch_execute(sql), "42883");
    assert!(cluster.log().contains(&format!("STATEMENT:  {sql}")));
    cluster.set("meshhook_secrets.value_functions", "other, public.hand_on(text)");
    cluster.reload();
    let masked = "STATEMENT:  SELECT public.hand_on('***')";
    eventually("the setting counts", || {
        expect_error(superuser.batch_execute(sql), "42883");
        cluster.log().contains(masked)
    });
    // Not for everybody to change.
    let set = "SET meshhook_secrets.value_functions = ''";
    expect_error(superuser.batch_execute(set), "55P02");
}

// --- the scene ------------------------------------------------------------------------------------

struct Hunt<'d> {
    db: &'d Database<'d>,
    ours: bool,
    alice: Uuid,
    project: Uuid,
    superuser: Client,
    client: Option<Client>,
    /// A second one, that a way opened.
    other: Option<Client>,
    /// What pg_stat_activity showed during a way.
    shown: Vec<u8>,
}

impl<'d> Hunt<'d> {
    fn new(db: &'d Database<'d>, ours: bool) -> Self {
        let mut superuser = db.superuser();
        superuser.batch_execute(HOST).unwrap();
        let alice = Uuid::new_v4();
        let project = if ours { db.project(alice) } else { Uuid::new_v4() };
        let shown = Vec::new();
        Self { db, ours, alice, project, superuser, client: None, other: None, shown }
    }

    fn connect(&mut self) {
        self.other = None;
        self.client = Some(if self.ours { self.db.user(self.alice) } else { self.db.superuser() });
    }

    fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("connected")
    }

    fn superuser_of(&mut self) -> &mut Client {
        self.other.insert(self.db.superuser())
    }

    /// A call with this expression as the value.
    fn put(&self, value: &str) -> String {
        format!("meshhook_secrets.secret_put('{}', 'N', {value})", self.project)
    }

    fn run(&mut self, sql: &str) {
        let _ = self.client().batch_execute(sql);
    }

    fn bind(&mut self, sql: &str, value: &str) {
        let project = self.project;
        let _ = self.client().query(sql, &[&project, &value]);
    }

    fn bind_project(&mut self, sql: &str) {
        let project = self.project;
        let _ = self.client().query(sql, &[&project]);
    }

    /// Stores a value to be revealed later.
    fn keep(&mut self, value: &str) {
        self.bind("SELECT meshhook_secrets.secret_put($1, 'N', $2)", value);
    }

    /// As PostgREST calls a function, with the request's body as one parameter.
    fn body(&mut self, body: &str) {
        let call = r#"WITH pgrst_source AS (SELECT "pgrst_call".* FROM (SELECT $1::text::json AS json_data) pgrst_payload,
            LATERAL (SELECT "project_id", "name", "value" FROM json_to_record(pgrst_payload.json_data)
                AS _("project_id" uuid, "name" text, "value" text) LIMIT 1) pgrst_body,
            LATERAL "meshhook_secrets"."secret_put"("project_id" := pgrst_body.project_id,
                "name" := pgrst_body.name, "value" := pgrst_body.value) pgrst_call)
            SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total
            FROM (SELECT "secret_put".* FROM "pgrst_source" AS "secret_put") _postgrest_t"#;
        let _ = self.client().query(call, &[&body]);
    }

    /// Runs a statement that sleeps, looks at it, and ends it.
    fn sleeping(&mut self, sql: &str, end: &str) {
        let pid = backend_pid(self.client());
        let mut client = self.client.take().expect("connected");
        let sql = sql.to_owned();
        let thread = std::thread::spawn(move || {
            let _ = client.batch_execute(&sql);
            client
        });
        let sleeps = "SELECT query FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        eventually("it sleeps", || match self.superuser.query_opt(sleeps, &[&pid]).unwrap() {
            Some(row) => {
                self.shown.extend(row.get::<_, String>(0).bytes());
                true
            }
            None => false,
        });
        self.superuser.query(&format!("SELECT {end}($1)"), &[&pid]).unwrap();
        self.client = Some(thread.join().unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }

    /// What pg_stat_activity shows now of everybody, and showed meanwhile.
    fn activity(&mut self) -> Vec<u8> {
        let all = "SELECT coalesce(string_agg(query, ' '), '') FROM pg_stat_activity";
        let shown: String = self.superuser.query_one(all, &[]).unwrap().get(0);
        [std::mem::take(&mut self.shown), shown.into_bytes()].concat()
    }
}

/// A server that logs all it can.
fn server(libraries: &str) -> Cluster {
    let mut builder = Cluster::builder()
        .setting("shared_preload_libraries", libraries)
        .setting(
            "meshhook_secrets.value_functions",
            "public.store_key, \"public\".\"store_sql\"(uuid, text), store_call, refuse_key, inbox",
        )
        .setting("shared_buffers", "2MB")
        .setting("max_connections", "20")
        .setting("wal_level", "logical")
        .setting("wal_keep_size", "1GB");
    for (name, value) in [
        ("logging_collector", "on"),
        ("log_destination", "stderr,csvlog,jsonlog"),
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_duration", "on"),
        ("log_min_messages", "debug2"),
        ("log_error_verbosity", "verbose"),
        ("log_lock_waits", "on"),
        ("log_parameter_max_length", "-1"),
        ("log_parameter_max_length_on_error", "-1"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_verbose", "on"),
        ("auto_explain.log_buffers", "on"),
        ("auto_explain.log_triggers", "on"),
        ("auto_explain.log_settings", "on"),
        ("auto_explain.log_nested_statements", "on"),
        ("pgaudit.log", "all"),
        ("pgaudit.log_parameter", "on"),
        ("pgaudit.log_relation", "on"),
        ("pg_stat_statements.track", "all"),
        ("pg_stat_statements.track_planning", "on"),
    ] {
        builder = builder.setting(name, value);
    }
    // In another language than English, if the server has it.
    if let Ok(language) = std::env::var("TEST_LC_MESSAGES") {
        builder = builder.setting("lc_messages", &language);
    }
    if Path::new(&support::Prefix::get().modules()).join("pgaudit.so").exists() {
        builder.start()
    } else {
        panic!("this test needs pgaudit (apt-get install postgresql-NN-pgaudit)")
    }
}

/// The host's own code around the functions.
const HOST: &str = "
    CREATE EXTENSION pg_stat_statements SCHEMA public;
    CREATE FUNCTION public.store_key(project uuid, value text, fail boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql AS $$ BEGIN
        PERFORM meshhook_secrets.secret_put(project, 'N', value);
        IF fail THEN
            RAISE NOTICE 'about to refuse %', reverse(value);
            RAISE EXCEPTION 'refused %', upper(value) USING DETAIL = value, HINT = value;
        END IF;
    END $$;
    CREATE FUNCTION public.refuse_key(value text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'refused %', value USING DETAIL = value, HINT = 'not ' || value;
    END $$;
    CREATE FUNCTION public.store_sql(project uuid, value text) RETURNS text LANGUAGE sql
        AS $$ SELECT meshhook_secrets.secret_put(project, 'N', value)::text $$;
    CREATE PROCEDURE public.store_call(project uuid, value text) LANGUAGE plpgsql
        AS $$ BEGIN PERFORM meshhook_secrets.secret_put(project, 'N', value); END $$;
    CREATE TABLE public.inbox (project uuid, name text, value text);
    CREATE FUNCTION public.take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM meshhook_secrets.secret_put(NEW.project, NEW.name, NEW.value);
        RETURN NULL;
    END $$;
    CREATE TRIGGER take BEFORE INSERT ON public.inbox FOR EACH ROW EXECUTE FUNCTION public.take();
    CREATE TABLE public.small (value text CHECK (length(value) < 3));
    GRANT ALL ON public.inbox, public.small TO PUBLIC;
    GRANT EXECUTE ON ALL ROUTINES IN SCHEMA public TO PUBLIC;";

/// Functions that store nothing.
const STAND_IN: &str = "
    CREATE SCHEMA meshhook_secrets;
    CREATE FUNCTION meshhook_secrets.secret_put(project_id uuid, name text, value text, cas int = NULL)
    RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('stand_in.value', value, false);
        RETURN 'stored';
    END $$;
    CREATE FUNCTION meshhook_secrets.secret_put_bytes(project_id uuid, name text, value bytea)
    RETURNS text LANGUAGE sql AS $$ SELECT 'stored' $$;
    CREATE FUNCTION meshhook_secrets.secret_get(project_id uuid, name text) RETURNS text
    LANGUAGE sql VOLATILE AS $$ SELECT current_setting('stand_in.value') $$;
    CREATE FUNCTION meshhook_secrets.secret_get_many(project_id uuid) RETURNS TABLE (name text, value text)
    LANGUAGE sql VOLATILE AS $$ SELECT 'N', current_setting('stand_in.value') $$;
    GRANT USAGE ON SCHEMA meshhook_secrets TO PUBLIC;";

// --- looking --------------------------------------------------------------------------------------

fn spellings(tag: &str) -> [Vec<u8>; 5] {
    let reversed: String = tag.chars().rev().collect();
    [
        tag.as_bytes().to_vec(),
        tag.to_uppercase().into_bytes(),
        reversed.into_bytes(),
        hex(tag.as_bytes()).into_bytes(),
        hex(tag.as_bytes()).to_uppercase().into_bytes(),
    ]
}

fn mentions(bytes: &[u8], tag: &str) -> bool {
    spellings(tag).iter().any(|spelling| memmem::find(bytes, spelling).is_some())
}

/// Every trace: the way that it comes from, as far as that can be said, and what is around it.
fn traces(bytes: &[u8], tag: &str) -> Vec<(Option<usize>, String)> {
    let mut found = Vec::new();
    for spelling in spellings(tag) {
        for at in memmem::find_iter(bytes, &spelling) {
            let after = &bytes[at + spelling.len()..];
            let number = match after {
                [b'w' | b'W', a, b, ..] => {
                    std::str::from_utf8(&[*a, *b]).ok().and_then(|it| it.parse().ok())
                }
                [b'7' | b'5', b'7', b'3', a, b'3', b, ..] => {
                    std::str::from_utf8(&[*a, *b]).ok().and_then(|it| it.parse().ok())
                }
                _ => None,
            };
            if number.is_none()
                && found.iter().any(|(known, _): &(Option<usize>, String)| known.is_some())
            {
                continue; // the second half
            }
            let around = &bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())];
            found.push((number, String::from_utf8_lossy(around).into_owned()));
        }
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files(path: &Path) -> Vec<PathBuf> {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().flat_map(|entry| files(&entry.path())).collect(),
        Err(_) => vec![path.to_owned()],
    }
}

/// A core file of a running process; `None` if it has ended meanwhile.
fn core_of(cluster: &Cluster, pid: i32) -> Option<Vec<u8>> {
    let prefix = cluster.dir().join("core");
    let output = Command::new("gcore").arg("-o").arg(&prefix).arg(pid.to_string()).output();
    let output = output.expect("this test needs gcore of the package gdb (apt-get install gdb)");
    let file = PathBuf::from(format!("{}.{pid}", prefix.display()));
    let core = fs::read(&file).ok();
    let alive = Path::new(&format!("/proc/{pid}")).exists();
    assert!(core.is_some() || !alive, "{}", String::from_utf8_lossy(&output.stderr));
    let _ = fs::remove_file(file);
    core
}
