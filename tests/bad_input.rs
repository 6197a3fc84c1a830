//! What callers get who ask for something that cannot be: for every function and every
//! argument the promised SQLSTATE, a short message without anything of theirs in it, a
//! DETAIL or HINT that helps, and tables that are as they were. Extreme values and servers
//! that are not set up for the extension give clean errors too, never a defect.

use postgres::Client;
use postgres::types::ToSql;
use support::{Cluster, Database, Failure, expect_error};
use uuid::Uuid;

// --- NULL ----------------------------------------------------------------------------

#[test]
fn null_for_a_required_argument_is_refused_by_name() {
    let mut p = Project::new();
    // Each function with all its required arguments; those with defaults that need a value too.
    let functions: [(&str, &[(&str, &str)]); 15] = [
        ("secret_put", &[PROJECT, NAME, ("value", "'v'")]),
        ("secret_put_bytes", &[PROJECT, NAME, ("value", r"'\x00'")]),
        ("secret_generate", &[PROJECT, NAME, ("length", "32"), ("charset", "'hex'")]),
        ("secret_rollback", &[PROJECT, NAME, ("version", "1")]),
        ("secret_get", &[PROJECT, NAME]),
        ("secret_get_bytes", &[PROJECT, NAME]),
        ("secret_get_many", &[PROJECT]),
        ("secret_list", &[PROJECT, ("include_deleted", "false"), ("page_size", "10")]),
        ("secret_describe", &[PROJECT, NAME]),
        ("secret_versions", &[PROJECT, NAME]),
        ("secret_due", &[("within", "interval '1 day'")]),
        ("secret_delete", &[PROJECT, NAME]),
        ("secret_undelete", &[PROJECT, NAME]),
        ("secret_purge", &[PROJECT, NAME, ("confirm", "'KEY'")]),
        ("secret_expire", &[PROJECT, NAME, ("expires_at", "NULL")]),
    ];
    for (function, arguments) in functions {
        for (nulled, given) in arguments {
            if *given == "NULL" {
                continue; // legal: never expires
            }
            let call = call(function, arguments, Some(nulled), p.id);
            p.refused(&call, &[], "22004").detail(&format!("\"{nulled}\""));
        }
        // With all of them it is about something else, or nothing.
        let call = call(function, arguments, None, p.id);
        let mut transaction = p.user.transaction().unwrap();
        if let Err(error) = transaction.query(&format!("SELECT * FROM {call}"), &[]) {
            assert_ne!(error.code().unwrap().code(), "22004", "{call}");
        }
    }
}

#[test]
fn null_inside_names_is_refused() {
    let mut p = Project::new();
    let id = p.id;
    let call = "meshhook_secrets.secret_get_many($1, ARRAY['KEY', NULL])";
    p.refused(call, &[&id], "22004").detail("names");
}

// --- names ---------------------------------------------------------------------------

#[test]
fn names_that_are_none_are_refused_everywhere() {
    let mut p = Project::new();
    let long = "n".repeat(256);
    let huge = "n".repeat(1_000_000);
    let names = [
        "",
        long.as_str(),
        huge.as_str(),
        "9lives",
        "-dash",
        ".dot",
        "with space",
        " lead",
        "trail ",
        "sl/ash",
        "new\nline",
        "line\n",
        "tab\t",
        "ümlaut",
        "umlaüt",
        "日本",
        "quo'te",
        "semi;colon",
        "per%cent",
        "a\u{301}",
        "zero\u{200b}width",
    ];
    let calls = [
        "secret_put($1, $2, 'v')",
        r"secret_put_bytes($1, $2, '\x00')",
        "secret_generate($1, $2)",
        "secret_rollback($1, $2, 1)",
        "secret_get($1, $2)",
        "secret_get_bytes($1, $2)",
        "secret_get_many($1, ARRAY['KEY', $2])",
        "secret_describe($1, $2)",
        "secret_versions($1, $2)",
        "secret_delete($1, $2)",
        "secret_undelete($1, $2)",
        "secret_purge($1, $2, $2)",
        "secret_expire($1, $2, now())",
    ];
    let id = p.id;
    for name in names {
        for call in calls {
            let failure = p.refused(&ours(call), &[&id, &name], "22023").hint("255");
            if name.len() > 4 {
                failure.hides(name);
            }
        }
    }
    // The longest name that is one.
    let longest = "n".repeat(255);
    p.user.query("SELECT meshhook_secrets.secret_put($1, $2, 'v')", &[&id, &longest]).unwrap();
}

#[test]
fn more_than_a_thousand_names_are_refused() {
    let mut p = Project::new();
    let id = p.id;
    let names: Vec<String> = (0..1001).map(|i| format!("N{i}")).collect();
    let call = ours("secret_get_many($1, $2)");
    p.refused(&call, &[&id, &names], "22023").detail("1000");
    // Also if they are all the same.
    p.refused(&call, &[&id, &vec!["KEY"; 1001]], "22023").detail("1000");
    let rows = p.user.query(&format!("SELECT * FROM {call}"), &[&id, &&names[..1000]]).unwrap();
    assert_eq!(rows.len(), 1000);
}

#[test]
fn names_in_two_dimensions_are_read_or_refused_cleanly() {
    let mut p = Project::new();
    let id = p.id;
    let sql = "SELECT name, status FROM
        meshhook_secrets.secret_get_many($1, ARRAY[['KEY', 'A'], ['B', 'KEY']])";
    let rows = p.user.query(sql, &[&id]).unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["KEY", "A", "B"]);
}

// --- values --------------------------------------------------------------------------

#[test]
fn a_value_over_the_limit_is_refused() {
    let mut p = Project::new();
    let id = p.id;
    let limit = 64 * 1024;
    let text = format!("{VALUE}{}", "x".repeat(limit));
    let (fits, over) = (&text[..limit], &text[..=limit]);
    p.refused(&ours("secret_put($1, 'KEY', $2)"), &[&id, &over], "PT413")
        .detail("65537")
        .detail("65536")
        .hint("max_value_size");
    p.refused(&ours("secret_put_bytes($1, 'KEY', $2)"), &[&id, &over.as_bytes()], "PT413");
    // Bytes count, not characters.
    let multibyte = "é".repeat(limit / 2) + "x";
    p.refused(&ours("secret_put($1, 'KEY', $2)"), &[&id, &multibyte], "PT413");
    p.refused(&ours("secret_put($1, 'KEY', repeat('x', 100000000))"), &[&id], "PT413");

    p.user.query("SELECT meshhook_secrets.secret_put($1, 'KEY', $2)", &[&id, &fits]).unwrap();
    assert_eq!(p.get("KEY"), fits);
    let bytes = "SELECT meshhook_secrets.secret_put_bytes($1, 'KEY', $2)";
    p.user.query(bytes, &[&id, &fits.as_bytes()]).unwrap();
    assert_eq!(p.get("KEY"), fits);
}

#[test]
fn the_limit_can_be_raised_to_a_mebibyte() {
    let mut p = Project::new();
    let id = p.id;
    // Not by everybody, and no further.
    let raise = |size: &str| format!("SET meshhook_secrets.max_value_size = '{size}'");
    expect_error(p.user.batch_execute(&raise("1MB")), "42501");
    expect_error(p.db.superuser().batch_execute(&raise("1048577")), "22023");
    expect_error(p.db.superuser().batch_execute(&raise("0")), "22023");
    let sql = format!("ALTER DATABASE {} {}", p.db.name(), raise("1MB"));
    p.db.superuser().batch_execute(&sql).unwrap();

    p.user = p.db.user(p.owner);
    let mebibyte = "0123456789abcdef".repeat(64 * 1024);
    let put = "SELECT meshhook_secrets.secret_put($1, 'KEY', $2)";
    p.user.query(put, &[&id, &mebibyte]).unwrap();
    assert!(p.get("KEY") == mebibyte);
    let over = format!("{mebibyte}x");
    let call = ours("secret_put($1, 'KEY', $2)");
    p.refused(&call, &[&id, &over], "PT413").detail("1048577").detail("1048576");

    // Lowered again, what is stored stays readable, and can be rolled back to no more.
    let sql = format!("ALTER DATABASE {} {}", p.db.name(), raise("10"));
    p.db.superuser().batch_execute(&sql).unwrap();
    p.user = p.db.user(p.owner);
    assert!(p.get("KEY") == mebibyte);
    p.refused(&call, &[&id, &"12345678901"], "PT413").detail("11").detail("10");
    let rollback = "SELECT * FROM meshhook_secrets.secret_rollback($1, 'KEY', 2)";
    expect_error(p.user.query(rollback, &[&id]), "PT413");
}

#[test]
fn generated_values_have_limits() {
    let mut p = Project::new();
    let id = p.id;
    let call = ours("secret_generate($1, 'KEY', $2, $3)");
    for length in [0, -1, 4097, i32::MIN, i32::MAX] {
        p.refused(&call, &[&id, &length, &"hex"], "22023");
    }
    for charset in ["", "HEX", "hex ", "base64", "nonsense-4711", "日本", &"x".repeat(100_000)] {
        p.refused(&call, &[&id, &10, &charset], "22023").hint("base64url").hides("nonsense-4711");
    }
    let huge = "2147483648::bigint";
    let sql = format!("SELECT * FROM meshhook_secrets.secret_generate($1, 'KEY', {huge})");
    expect_error(p.user.query(&sql, &[&id]), "42883");
}

// --- versions ------------------------------------------------------------------------

#[test]
fn unknown_versions_are_not_found() {
    let mut p = Project::new();
    let id = p.id;
    for version in [0, -1, 3, 999, i32::MAX, i32::MIN] {
        for call in [
            "secret_get($1, $2, $3)",
            "secret_get_bytes($1, $2, $3)",
            "secret_rollback($1, $2, $3)",
        ] {
            p.refused(&ours(call), &[&id, &"KEY", &version], "PT404")
                .message("version")
                .detail(&version.to_string())
                .hint("secret_versions");
            p.refused(&ours(call), &[&id, &"NONE", &version], "PT404").hint("secret_list");
        }
    }
}

#[test]
fn a_wrong_cas_is_a_conflict() {
    let mut p = Project::new();
    let id = p.id;
    let calls = [
        "secret_put($1, $2, 'v', cas => $3)",
        r"secret_put_bytes($1, $2, '\x00', cas => $3)",
        "secret_generate($1, $2, cas => $3)",
    ];
    for call in calls {
        for cas in [0, 1, 3, i32::MAX] {
            p.refused(&ours(call), &[&id, &"KEY", &cas], "PT409").detail("current version is 2");
        }
        for cas in [1, i32::MAX] {
            p.refused(&ours(call), &[&id, &"NONE", &cas], "PT409").detail("0");
        }
        for cas in [-1, i32::MIN] {
            p.refused(&ours(call), &[&id, &"KEY", &cas], "22023").detail("negative");
            p.refused(&ours(call), &[&id, &"NONE", &cas], "22023").detail("negative");
        }
    }
    let rollback = ours("secret_rollback($1, $2, 1, cas => $3)");
    for cas in [0, 1, 3] {
        p.refused(&rollback, &[&id, &"KEY", &cas], "PT409");
    }
    p.refused(&rollback, &[&id, &"KEY", &-1], "22023");
    p.refused(&rollback, &[&id, &"NONE", &1], "PT404");
}

// --- time ------------------------------------------------------------------------------

#[test]
fn a_new_value_cannot_have_expired_already() {
    let mut p = Project::new();
    let id = p.id;
    for call in [
        "secret_put($1, $2, 'v', expires_at => $3::text::timestamptz)",
        r"secret_put_bytes($1, $2, '\x00', expires_at => $3::text::timestamptz)",
        "secret_generate($1, $2, expires_at => $3::text::timestamptz)",
    ] {
        for past in ["now", "yesterday", "1970-01-01", "4713-01-01 BC", "-infinity"] {
            for name in ["KEY", "NEW"] {
                let failure = p.refused(&ours(call), &[&id, &name, &past], "22023");
                failure.detail("past").hint("secret_expire");
            }
        }
    }
}

#[test]
fn intervals_cannot_be_negative() {
    let mut p = Project::new();
    let id = p.id;
    for interval in
        ["-1 microsecond", "-1 month", "1 day -25 hours", "-178000000 years", "-290000 years"]
    {
        for call in [
            "secret_put($1, 'KEY', 'v', previous_valid_for => $2::text::interval)",
            "secret_put($1, 'NEW', 'v', previous_valid_for => $2::text::interval)",
            r"secret_put_bytes($1, 'KEY', '\x00', previous_valid_for => $2::text::interval)",
            "secret_generate($1, 'KEY', previous_valid_for => $2::text::interval)",
            "secret_due($1, $2::text::interval)",
        ] {
            p.refused(&ours(call), &[&id, &interval], "22023").detail("negative");
        }
    }
}

#[test]
fn extremes_of_time_are_taken_or_refused_cleanly() {
    let mut p = Project::new();
    let id = p.id;
    let times = [
        ("infinity", true),
        ("294276-12-31 23:59:59.999999+00", true),
        ("-infinity", false),
        ("4714-11-24 00:00:00+00 BC", false),
    ];
    let intervals = [
        ("0", true),
        ("1000 years", true),
        ("178000000 years", false),
        ("-178000000 years", false),
        ("292000 years", false),
        ("2147483647 days", false),
    ];
    let put = "secret_put($1, 'KEY', 'v', expires_at => $2::text::timestamptz)";
    let expire = "secret_expire($1, 'KEY', $2::text::timestamptz)";
    let replace = "secret_put($1, 'KEY', 'v', previous_valid_for => $2::text::interval)";
    let due = "secret_due($1, $2::text::interval)";
    let mut calls = Vec::new();
    for (time, is_ahead) in times {
        // What exists may have ended at any time, what is new must end in the future.
        calls.extend([(put, time, is_ahead), (expire, time, true)]);
    }
    for (interval, is_fine) in intervals {
        calls.extend([(replace, interval, is_fine), (due, interval, is_fine)]);
    }
    for (call, extreme, is_taken) in calls {
        if is_taken {
            let sql = format!("SELECT * FROM {}", ours(call));
            let answer = p.user.query(&sql, &[&id, &extreme]);
            assert!(answer.is_ok(), "{call} {extreme}: {answer:?}");
        } else {
            p.refused(&ours(call), &[&id, &extreme], "22023");
        }
        // It can be looked at.
        for call in ["secret_versions($1, 'KEY')", "secret_list($1)", "secret_due($1, '999 years')"]
        {
            p.user.query(&format!("SELECT r::text FROM {} r", ours(call)), &[&id]).unwrap();
        }
    }
    p.user.query("SELECT meshhook_secrets.secret_put($1, 'KEY', 'fine')", &[&id]).unwrap();
    assert_eq!(p.get("KEY"), "fine");
}

// --- pages, purposes, numbers ------------------------------------------------------------

#[test]
fn pages_have_1_to_1000_rows() {
    let mut p = Project::new();
    let id = p.id;
    for size in [0, -1, 1001, i32::MIN, i32::MAX] {
        p.refused(&ours("secret_list($1, page_size => $2)"), &[&id, &size], "22023")
            .detail("1000")
            .hint("after");
    }
    for size in [1, 1000] {
        p.user
            .query("SELECT meshhook_secrets.secret_list($1, page_size => $2)", &[&id, &size])
            .unwrap();
    }
    // Search and after may be anything.
    let odd = "%_\\'\n日本".repeat(10_000);
    let sql = "SELECT meshhook_secrets.secret_list($1, search => $2, after => $2)";
    assert!(p.user.query(sql, &[&id, &odd]).unwrap().is_empty());
}

#[test]
fn a_purpose_has_at_most_100_characters() {
    let mut p = Project::new();
    let id = p.id;
    let (fits, over) = ("é".repeat(100), "é".repeat(101));
    for call in [
        "secret_get($1, 'KEY', purpose => $2)",
        "secret_get_bytes($1, 'KEY', purpose => $2)",
        "secret_get_many($1, purpose => $2)",
        "secret_get($1, 'NONE', purpose => $2)",
    ] {
        p.refused(&ours(call), &[&id, &over], "22023").detail("100").hides(&over);
        let sql = format!("SELECT * FROM {}", ours(call));
        match p.user.query(&sql, &[&id, &fits]) {
            Ok(rows) => assert!(!rows.is_empty()),
            Err(error) => assert_eq!(error.code().unwrap().code(), "PT404", "{call}"),
        }
    }
}

// --- deletion ----------------------------------------------------------------------------

#[test]
fn a_purge_needs_the_name_as_confirmation() {
    let mut p = Project::new();
    let id = p.id;
    for confirm in ["", "key", "KEY ", "yes", "OTHER", &"K".repeat(1000)] {
        p.refused(&ours("secret_purge($1, 'KEY', $2)"), &[&id, &confirm], "22023")
            .detail("confirm");
        p.refused(&ours("secret_purge($1, 'DELETED', $2)"), &[&id, &confirm], "22023");
    }
    p.refused(&ours("secret_purge($1, 'NONE', 'NONE')"), &[&id], "PT404");
    // There is no default for it.
    expect_error(p.user.query("SELECT meshhook_secrets.secret_purge($1, 'KEY')", &[&id]), "42883");
    assert_eq!(p.get("KEY"), format!("{VALUE} 2"));
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let mut p = Project::new();
    let id = p.id;
    p.refused(&ours("secret_undelete($1, 'KEY')"), &[&id], "PT409").message("not deleted");
    p.refused(&ours("secret_undelete($1, 'NONE')"), &[&id], "PT404");
    p.refused(&ours("secret_delete($1, 'NONE')"), &[&id], "PT404");
    p.refused(&ours("secret_expire($1, 'NONE', NULL)"), &[&id], "PT404");
    p.refused(&ours("secret_delete($1, 'DELETED')"), &[&id], "PT410").hint("secret_undelete");
    p.refused(&ours("secret_put($1, 'DELETED', $2)"), &[&id, &VALUE], "PT410");
    p.refused(&ours("secret_generate($1, 'DELETED')"), &[&id], "PT410");
    p.refused(&ours("secret_rollback($1, 'DELETED', 1)"), &[&id], "PT410");
    p.refused(&ours("secret_get($1, 'DELETED')"), &[&id], "PT410");
    p.refused(&ours("secret_expire($1, 'DELETED', now())"), &[&id], "PT410");
    p.refused(&ours("secret_get($1, 'EXPIRED')"), &[&id], "PT410").hint("secret_expire");
    p.refused(&ours("secret_rollback($1, 'EXPIRED', 1)"), &[&id], "PT410");
    p.refused(&ours("secret_get($1, 'BINARY')"), &[&id], "22023").hint("secret_get_bytes");
    for call in
        ["secret_get($1, 'NONE')", "secret_describe($1, 'NONE')", "secret_versions($1, 'NONE')"]
    {
        p.refused(&ours(call), &[&id], "PT404").hint("secret_list");
    }
}

#[test]
fn a_project_that_does_not_exist_is_refused() {
    let mut p = Project::new();
    let none = Uuid::new_v4();
    let calls = [
        "secret_put($1, 'KEY', 'v')",
        r"secret_put_bytes($1, 'KEY', '\x00')",
        "secret_generate($1, 'KEY')",
        "secret_rollback($1, 'KEY', 1)",
        "secret_get($1, 'KEY')",
        "secret_get_bytes($1, 'KEY')",
        "secret_get_many($1)",
        "secret_get_many($1, ARRAY['KEY'])",
        "secret_list($1)",
        "secret_describe($1, 'KEY')",
        "secret_versions($1, 'KEY')",
        "secret_due($1)",
        "secret_delete($1, 'KEY')",
        "secret_undelete($1, 'KEY')",
        "secret_purge($1, 'KEY', 'KEY')",
        "secret_expire($1, 'KEY', now())",
    ];
    for call in calls {
        p.refused(&ours(call), &[&none], "42501");
    }
    // Whom row-level security does not hold back learns that there is no such project.
    let owner = std::mem::replace(&mut p.user, p.db.service());
    for call in calls {
        let writes_a_value = call.contains("put") || call.contains("generate");
        p.refused(&ours(call), &[&none], if writes_a_value { "23503" } else { "42501" });
    }
    drop(owner);
}

// --- servers --------------------------------------------------------------------------------

#[test]
fn without_preload_the_server_works_and_says_what_to_do() {
    let cluster = Cluster::builder().start();
    let mut p = Project::in_cluster(&cluster);
    let id = p.id;
    cluster.set("shared_preload_libraries", "");
    cluster.restart();
    p.connect();

    for call in [
        "secret_put($1, 'KEY', 'v')",
        "secret_put($1, 'NEW', 'v')",
        r"secret_put_bytes($1, 'KEY', '\x00')",
        "secret_generate($1, 'KEY')",
        "secret_rollback($1, 'KEY', 1)",
        "secret_get($1, 'KEY')",
        "secret_get($1, 'KEY', 1)",
        "secret_get_bytes($1, 'KEY')",
        "secret_get_many($1)",
        "secret_get_many($1, ARRAY['KEY'])",
        "secret_delete($1, 'KEY')",
        "secret_undelete($1, 'DELETED')",
        "secret_expire($1, 'KEY', now())",
    ] {
        p.refused(&ours(call), &[&id], "55000").hint("shared_preload_libraries");
    }
    for call in
        ["seal()", "unseal()", "seal($1)", "unseal($1)", "seal_status()", "root_key_status()"]
    {
        let sql = format!("SELECT * FROM meshhook_secrets.{call}");
        let answer = match call.contains("$1") {
            true => p.superuser.query(&sql, &[&id]),
            false => p.superuser.query(&sql, &[]),
        };
        expect_error(answer, "55000").hint("shared_preload_libraries");
    }
    // What needs no key cannot be recorded; the rest of the server works.
    for call in [
        "secret_list($1)",
        "secret_describe($1, 'KEY')",
        "secret_versions($1, 'KEY')",
        "secret_due($1)",
    ] {
        p.refused(&ours(call), &[&id], "55000").hint("shared_preload_libraries");
    }
    let count: i64 = p.user.query_one("SELECT count(*) FROM public.projects", &[]).unwrap().get(0);
    assert_eq!(count, 1);

    cluster.set("shared_preload_libraries", "meshhook_secrets");
    cluster.restart();
    p.connect();
    assert_eq!(p.get("KEY"), format!("{VALUE} 2"));
}

#[test]
fn without_preload_the_extension_can_be_created() {
    let cluster = Cluster::builder().preload(false).start();
    let db = cluster.database();
    let owner = Uuid::new_v4();
    let project = db.project(owner);
    let put = "SELECT meshhook_secrets.secret_put($1, 'KEY', 'v')";
    expect_error(db.user(owner).query(put, &[&project]), "55000").hint("shared_preload_libraries");
    let list = "SELECT meshhook_secrets.secret_list($1)";
    expect_error(db.user(owner).query(list, &[&project]), "55000");
    db.superuser().batch_execute("DROP EXTENSION meshhook_secrets CASCADE").unwrap();
}

#[test]
fn databases_in_other_encodings_are_refused() {
    let cluster = Cluster::shared();
    let mut admin = cluster.connect("postgres", "postgres");
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let name = format!("bad_input_{encoding}").to_lowercase();
        let create =
            format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
        admin.batch_execute(&create).unwrap();
        let mut client = cluster.connect(&name, "postgres");
        let refused = client.batch_execute("CREATE EXTENSION meshhook_secrets");
        expect_error(refused, "0A000").message("UTF8").hint("ENCODING");
        let left = "SELECT count(*) FROM pg_namespace WHERE nspname = 'meshhook_secrets'";
        assert_eq!(client.query_one(left, &[]).unwrap().get::<_, i64>(0), 0);
        drop(client);
        admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).unwrap();
    }
}

#[test]
fn clients_see_no_backtrace() {
    let cluster = Cluster::builder()
        .environment("RUST_BACKTRACE", "1")
        .environment("RUST_LIB_BACKTRACE", "1")
        .start();
    let mut p = Project::in_cluster(&cluster);
    let id = p.id;
    // The server does have the variable.
    let pid = cluster.postmaster_pid();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("RUST_BACKTRACE=1"));

    // Refusals of ours, and of PostgreSQL underneath us.
    let none = Uuid::new_v4();
    for (call, project, state) in [
        ("secret_get($1, NULL)", id, "22004"),
        ("secret_get($1, '9')", id, "22023"),
        ("secret_get($1, 'NONE')", id, "PT404"),
        ("secret_get($1, 'DELETED')", id, "PT410"),
        ("secret_get($1, 'KEY')", none, "42501"),
        ("secret_put($1, 'KEY', 'v', cas => 7)", id, "PT409"),
        ("secret_put($1, 'KEY', repeat('x', 70000))", id, "PT413"),
        ("secret_due($1, interval '178000000 years')", id, "22023"),
        (
            "secret_put($1, 'KEY', 'v', previous_valid_for => interval '178000000 years')",
            id,
            "22023",
        ),
    ] {
        let failure = p.refused(&ours(call), &[&project], state);
        no_backtrace(&format!("{failure:?}"));
    }
    let mut reader = p.user.build_transaction().read_only(true).start().unwrap();
    let put = "SELECT meshhook_secrets.secret_put($1, 'KEY', 'v')";
    no_backtrace(&format!("{:?}", expect_error(reader.query(put, &[&id]), "25006")));
    drop(reader);
    // A statement of ours that is cancelled, and one that fails in the host's own function.
    let mut superuser = p.db.superuser();
    superuser
        .batch_execute(
            "CREATE OR REPLACE FUNCTION public.user_project_ids() RETURNS SETOF uuid LANGUAGE plpgsql
             STABLE SECURITY DEFINER AS $$ BEGIN RETURN QUERY SELECT (1 / 0)::text::uuid; END $$",
        )
        .unwrap();
    let failed = p.user.query("SELECT meshhook_secrets.secret_list($1)", &[&id]);
    no_backtrace(&format!("{:?}", expect_error(failed, "22012")));
    superuser
        .batch_execute(
            "CREATE OR REPLACE FUNCTION public.user_project_ids() RETURNS SETOF uuid LANGUAGE plpgsql
             STABLE SECURITY DEFINER AS $$ BEGIN PERFORM pg_sleep(20); END $$",
        )
        .unwrap();
    p.user.batch_execute("SET statement_timeout = '100ms'").unwrap();
    let failed = p.user.query("SELECT meshhook_secrets.secret_get($1, 'KEY')", &[&id]);
    no_backtrace(&format!("{:?}", expect_error(failed, "57014")));
    no_backtrace(&cluster.log());
}

// --- helpers -----------------------------------------------------------------------------------

/// Part of every value that is stored here, so that no error may contain it.
const VALUE: &str = "value-5ec4e7";

const PROJECT: (&str, &str) = ("project_id", "PROJECT");
const NAME: (&str, &str) = ("name", "'KEY'");

/// A project in a database of its own, its owner, signed in, and some secrets: `KEY` with two
/// versions, `DELETED`, `EXPIRED` and `BINARY`.
struct Project<'c> {
    user: Client,
    superuser: Client,
    id: Uuid,
    owner: Uuid,
    db: Database<'c>,
}

impl Project<'static> {
    fn new() -> Self {
        Self::in_cluster(Cluster::shared())
    }
}

impl<'c> Project<'c> {
    fn in_cluster(cluster: &'c Cluster) -> Self {
        let db = cluster.database();
        let owner = Uuid::new_v4();
        let mut p = Self {
            user: db.user(owner),
            superuser: db.superuser(),
            id: db.project(owner),
            owner,
            db,
        };
        for (name, value) in [("KEY", 1), ("KEY", 2), ("DELETED", 1), ("EXPIRED", 1)] {
            let value = format!("{VALUE} {value}");
            let put = "SELECT meshhook_secrets.secret_put($1, $2, $3, description => 'about it')";
            p.user.query(put, &[&p.id, &name, &value]).unwrap();
        }
        for call in [
            r"secret_put_bytes($1, 'BINARY', '\xff00')",
            "secret_delete($1, 'DELETED')",
            "secret_expire($1, 'EXPIRED', now())",
        ] {
            p.user.query(&format!("SELECT * FROM {}", ours(call)), &[&p.id]).unwrap();
        }
        p
    }

    /// Connects anew after a restart.
    fn connect(&mut self) {
        self.user = self.db.user(self.owner);
        self.superuser = self.db.superuser();
    }

    /// A call that must be refused: with this SQLSTATE, politely, and without effect.
    #[track_caller]
    fn refused(&mut self, call: &str, parameters: &[&(dyn ToSql + Sync)], state: &str) -> Failure {
        let before = stored(&mut self.superuser);
        let answer = self.user.query(&format!("SELECT * FROM {call}"), parameters);
        if answer.is_ok() {
            panic!("{call} was not refused");
        }
        let failure = expect_error(answer, state);
        let Failure { message, detail, hint, .. } = &failure;
        assert!(!message.is_empty() && message.len() < 60, "{message:?}");
        assert!(message.chars().all(|c| (' '..='~').contains(&c)), "{message:?}");
        assert!(!(detail.is_empty() && hint.is_empty()), "{call}: {failure:?}");
        for ours in ["KEY", "DELETED", "EXPIRED", "BINARY", "NONE"] {
            assert!(!message.contains(ours), "{message:?}");
        }
        assert!(!message.contains(&self.id.to_string()), "{message:?}");
        let failure = failure.hides(VALUE);
        assert!(stored(&mut self.superuser) == before, "{call} has changed something");
        failure
    }

    fn get(&mut self, name: &str) -> String {
        let sql = "SELECT meshhook_secrets.secret_get($1, $2)";
        self.user.query_one(sql, &[&self.id, &name]).unwrap().get(0)
    }
}

/// All that is stored, as one text: rows and where they are, so that a rewritten one shows.
fn stored(superuser: &mut Client) -> String {
    let tables = [
        "kek_storage",
        "data_keys",
        "project_secrets",
        "rotation_jobs",
        "secret_versions",
        "settings",
    ];
    let all = tables.map(|table| {
        format!("SELECT '{table}' || t.ctid::text || t::text AS r FROM meshhook_secrets.{table} t")
    });
    let sql =
        format!("SELECT string_agg(r, E'\\n' ORDER BY r) FROM ({}) a", all.join(" UNION ALL "));
    superuser.query_one(&sql, &[]).unwrap().get(0)
}

fn ours(call: &str) -> String {
    format!("meshhook_secrets.{call}")
}

/// A call by name, one of its arguments NULL.
fn call(function: &str, arguments: &[(&str, &str)], nulled: Option<&str>, project: Uuid) -> String {
    let argument = |(name, value): &(&str, &str)| match nulled {
        Some(nulled) if nulled == *name => format!("{name} => NULL"),
        _ => format!("{name} => {}", value.replace("PROJECT", &format!("'{project}'"))),
    };
    let arguments: Vec<String> = arguments.iter().map(argument).collect();
    ours(&format!("{function}({})", arguments.join(", ")))
}

#[track_caller]
fn no_backtrace(text: &str) {
    for sign in
        ["backtrace", "Backtrace", "panicked", "rust_begin_unwind", ".rs:", "meshhook_secrets.so"]
    {
        assert!(!text.contains(sign), "{sign} in {text}");
    }
}
