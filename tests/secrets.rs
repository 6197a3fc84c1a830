//! What every `secret_*` function does for those who may call it: the round trips of
//! values, versions, expiry, deletion and recovery, lists and pages, and that all of
//! it holds inside transactions, across restarts, and through every way that clients
//! talk to the server (bound and prepared statements, PL/pgSQL, PostgREST, psql).

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use postgres::types::{FromSql, Json, ToSql};
use postgres::{Client, IsolationLevel, Row};
use serde_json::{Value, json};
use support::{Cluster, Database, expect_error, run};
use uuid::Uuid;

// --- values ------------------------------------------------------------------------

#[test]
fn text_comes_back_as_it_was_put() {
    let mut p = Project::new();
    let long = "x".repeat(64 * 1024);
    let multibyte = "é".repeat(32 * 1024);
    let values = [
        "",
        " ",
        "s3cr3t",
        "two\nlines\r\n\ttab",
        "quote ' double \" backslash \\ dollar $1 percent %s",
        "ünïcödé 日本語 🔑 e\u{301} \u{202e}rtl \u{feff}bom",
        "{\"json\": null}",
        "NULL",
        long.as_str(),
        multibyte.as_str(),
    ];
    for (index, value) in values.iter().enumerate() {
        let name = format!("TEXT_{index}");
        assert_eq!(put(&mut p.user, p.id, &name, value), 1);
        assert_eq!(get(&mut p.user, p.id, &name), *value);
        // Whoever reads bytes gets the UTF-8 of it.
        assert_eq!(get_bytes(&mut p.user, p.id, &name), value.as_bytes());
        // And the server side of the application sees the same.
        assert_eq!(get(&mut p.db.service(), p.id, &name), *value);
    }
}

#[test]
fn bytes_come_back_as_they_were_put() {
    let mut p = Project::new();
    let all: Vec<u8> = (0..=255).collect();
    let long: Vec<u8> = (0..64 * 1024).map(|i| (i * 31 % 251) as u8).collect();
    let values: [&[u8]; 6] = [b"", b"\0", b"a\0b", b"\xff\xfe", &all, &long];
    for (index, value) in values.iter().enumerate() {
        let name = format!("BYTES_{index}");
        let row = one(&mut p.user, "secret_put_bytes($1, $2, $3)", &[&p.id, &name, value]);
        assert_eq!(row.get::<_, i32>("version"), 1);
        assert_eq!(get_bytes(&mut p.user, p.id, &name), *value);
    }
    // What happens to be text can be read as text.
    one(&mut p.user, "secret_put_bytes($1, 'TEXT', $2)", &[&p.id, &"é".as_bytes()]);
    assert_eq!(get(&mut p.user, p.id, "TEXT"), "é");
}

#[test]
fn binary_values_are_not_given_out_as_text() {
    let mut p = Project::new();
    for value in [b"nul \0 inside".as_slice(), b"\xff", b"cut off \xc3", b"\xed\xa0\x80"] {
        one(&mut p.user, "secret_put_bytes($1, 'BINARY', $2)", &[&p.id, &value]);
        let refused = all(&mut p.user, "secret_get($1, 'BINARY')", &[&p.id]);
        expect_error(refused, "22023").hint("secret_get_bytes").detail("UTF-8");
        assert_eq!(get_bytes(&mut p.user, p.id, "BINARY"), value);
    }
}

#[test]
fn names_are_case_sensitive_and_may_be_255_long() {
    let mut p = Project::new();
    let longest = "N".repeat(255);
    for name in ["Key", "KEY", "_", "a.b-c_9", longest.as_str()] {
        assert_eq!(put(&mut p.user, p.id, name, name), 1);
    }
    for name in ["Key", "KEY", "_", "a.b-c_9", longest.as_str()] {
        assert_eq!(get(&mut p.user, p.id, name), name);
    }
}

#[test]
fn projects_have_their_own_names() {
    let mut p = Project::new();
    let other = p.db.project(p.owner);
    put(&mut p.user, p.id, "NAME", "here");
    put(&mut p.user, other, "NAME", "there");
    assert_eq!(get(&mut p.user, p.id, "NAME"), "here");
    assert_eq!(get(&mut p.user, other, "NAME"), "there");
}

// --- versions ------------------------------------------------------------------------

#[test]
fn every_put_makes_a_version_and_earlier_ones_stay() {
    let mut p = Project::new();
    let before = server_time(&mut p.user);
    let row = one(&mut p.user, "secret_put($1, 'KEY', 'first')", &[&p.id]);
    let id: Uuid = row.get("id");
    assert_eq!(row.get::<_, String>("name"), "KEY");
    assert_eq!(row.get::<_, i32>("version"), 1);
    let created: SystemTime = row.get("created_at");
    assert!(before <= created && created <= server_time(&mut p.user));
    assert_eq!(row.get::<_, Option<SystemTime>>("expires_at"), None);

    let row = one(&mut p.user, "secret_put($1, 'KEY', 'second')", &[&p.id]);
    assert_eq!(row.get::<_, Uuid>("id"), id);
    assert_eq!(row.get::<_, i32>("version"), 2);

    assert_eq!(get(&mut p.user, p.id, "KEY"), "second");
    assert_eq!(get_version(&mut p.user, p.id, "KEY", 1).unwrap(), "first");
    assert_eq!(get_version(&mut p.user, p.id, "KEY", 2).unwrap(), "second");
    expect_error(get_version(&mut p.user, p.id, "KEY", 3), "PT404").hint("secret_versions");

    let versions = all(&mut p.db.user(p.owner), "secret_versions($1, 'KEY')", &[&p.id]).unwrap();
    let of = |row: &Row| {
        let (version, status): (i32, String) = (row.get("version"), row.get("status"));
        assert_eq!(row.get::<_, String>("created_by"), p.owner.to_string());
        assert!(row.get::<_, SystemTime>("created_at") >= before);
        assert_eq!(row.get::<_, Option<SystemTime>>("expires_at"), None);
        (version, status, row.get("is_current"))
    };
    let versions: Vec<(i32, String, bool)> = versions.iter().map(of).collect();
    assert_eq!(versions, [(2, "enabled".into(), true), (1, "enabled".into(), false)]);
}

#[test]
fn one_statement_may_put_the_same_name_many_times() {
    let mut p = Project::new();
    let put = "generate_series(1, 3) i, meshhook_secrets.secret_put($1, 'KEY', 'v' || i)";
    let rows = p.user.query(&format!("SELECT version FROM {put}"), &[&p.id]).unwrap();
    assert_eq!(column::<i32>(&rows, 0), [1, 2, 3]);
    for version in 1..=3 {
        let value = get_version(&mut p.user, p.id, "KEY", version).unwrap();
        assert_eq!(value, format!("v{version}"));
    }
}

#[test]
fn cas_decides_whether_a_put_happens() {
    let mut p = Project::new();
    let put = |client: &mut Client, cas: i32| {
        all(client, "secret_put($1, 'KEY', $2, cas => $3)", &[&p.id, &format!("cas {cas}"), &cas])
            .map(|rows| rows[0].get::<_, i32>("version"))
    };
    assert_eq!(put(&mut p.user, 0).unwrap(), 1);
    expect_error(put(&mut p.user, 0), "PT409").detail("1");
    assert_eq!(put(&mut p.user, 1).unwrap(), 2);
    expect_error(put(&mut p.user, 1), "PT409").detail("2");
    assert_eq!(get(&mut p.user, p.id, "KEY"), "cas 1");
}

#[test]
fn the_previous_version_ends_when_told_so() {
    let mut p = Project::new();
    let ends = |client: &mut Client, version: i32| -> Option<i64> {
        let sql = "SELECT round(extract(epoch FROM expires_at - clock_timestamp()) / 60)::bigint
            FROM meshhook_secrets.secret_versions($1, 'KEY') WHERE version = $2";
        client.query_one(sql, &[&p.id, &version]).unwrap().get(0)
    };
    let put_ending = |client: &mut Client, value: &str, previous: &str| {
        let call = "secret_put($1, 'KEY', $2, previous_valid_for => $3::text::interval)";
        one(client, call, &[&p.id, &value, &previous]);
    };
    // NULL: for ever.
    put(&mut p.user, p.id, "KEY", "first");
    put(&mut p.user, p.id, "KEY", "second");
    assert_eq!(ends(&mut p.user, 1), None);
    // An hour: until then both work.
    put_ending(&mut p.user, "third", "1 hour");
    assert_eq!(ends(&mut p.user, 2), Some(60));
    assert_eq!(ends(&mut p.user, 1), None);
    assert_eq!(ends(&mut p.user, 3), None);
    assert_eq!(get_version(&mut p.user, p.id, "KEY", 2).unwrap(), "second");
    assert_eq!(get(&mut p.user, p.id, "KEY"), "third");
    // Zero: at once.
    put_ending(&mut p.user, "fourth", "0");
    expect_error(get_version(&mut p.user, p.id, "KEY", 3), "PT410").message("expired");
    assert_eq!(get(&mut p.user, p.id, "KEY"), "fourth");
    // An expiry of its own that comes earlier counts.
    one(&mut p.user, "secret_expire($1, 'KEY', now() + interval '10 minutes')", &[&p.id]);
    put_ending(&mut p.user, "fifth", "1 hour");
    assert_eq!(ends(&mut p.user, 4), Some(10));
    assert_eq!(ends(&mut p.user, 5), None);
    // Of a new secret there is no previous version.
    let call = "secret_put($1, 'NEW', 'v', previous_valid_for => interval '1 hour')";
    assert_eq!(one(&mut p.user, call, &[&p.id]).get::<_, i32>("version"), 1);
}

#[test]
fn rollback_makes_a_new_version_of_an_old_value() {
    let mut p = Project::new();
    put(&mut p.user, p.id, "KEY", "good");
    put(&mut p.user, p.id, "KEY", "bad");
    let row = one(&mut p.user, "secret_rollback($1, 'KEY', 1)", &[&p.id]);
    assert_eq!(row.get::<_, i32>("version"), 3);
    assert_eq!(get(&mut p.user, p.id, "KEY"), "good");
    assert_eq!(get_version(&mut p.user, p.id, "KEY", 2).unwrap(), "bad");

    let stale = all(&mut p.user, "secret_rollback($1, 'KEY', 1, cas => 2)", &[&p.id]);
    expect_error(stale, "PT409");
    let row = one(&mut p.user, "secret_rollback($1, 'KEY', 2, cas => 3)", &[&p.id]);
    assert_eq!(row.get::<_, i32>("version"), 4);
    assert_eq!(get(&mut p.user, p.id, "KEY"), "bad");
    // Binary values come back too.
    one(&mut p.user, r"secret_put_bytes($1, 'BIN', '\x00ff')", &[&p.id]);
    one(&mut p.user, "secret_put($1, 'BIN', 'text')", &[&p.id]);
    one(&mut p.user, "secret_rollback($1, 'BIN', 1)", &[&p.id]);
    assert_eq!(get_bytes(&mut p.user, p.id, "BIN"), b"\0\xff");

    let missing = all(&mut p.user, "secret_rollback($1, 'KEY', 9)", &[&p.id]);
    expect_error(missing, "PT404");
    let missing = all(&mut p.user, "secret_rollback($1, 'NONE', 1)", &[&p.id]);
    expect_error(missing, "PT404");
    // An expired version does not come back to life.
    put(&mut p.user, p.id, "OLD", "v");
    one(&mut p.user, "secret_expire($1, 'OLD', now())", &[&p.id]);
    put(&mut p.user, p.id, "OLD", "w");
    expect_error(all(&mut p.user, "secret_rollback($1, 'OLD', 1)", &[&p.id]), "PT410");
    assert_eq!(get(&mut p.user, p.id, "OLD"), "w");
}

#[test]
fn only_so_many_versions_are_kept() {
    let mut p = Project::new();
    for version in 1..=13 {
        assert_eq!(put(&mut p.user, p.id, "KEY", &format!("v{version}")), version);
    }
    let versions = |client: &mut Client| -> Vec<i32> {
        column(&all(client, "secret_versions($1, 'KEY')", &[&p.id]).unwrap(), 0)
    };
    // Ten by default.
    assert_eq!(versions(&mut p.user), (4..=13).rev().collect::<Vec<_>>());
    for gone in 1..=3 {
        expect_error(get_version(&mut p.user, p.id, "KEY", gone), "PT410")
            .message("destroyed")
            .detail("4")
            .hint("max_versions");
        let back = all(&mut p.user, "secret_rollback($1, 'KEY', $2)", &[&p.id, &gone]);
        expect_error(back, "PT410");
    }
    assert_eq!(get_version(&mut p.user, p.id, "KEY", 4).unwrap(), "v4");
    assert_eq!(p.stored_versions(), 10);

    // Fewer when the setting is lowered, from the next write on.
    p.set("max_versions", "2");
    let mut user = p.db.user(p.owner);
    assert_eq!(versions(&mut user).len(), 10);
    put(&mut user, p.id, "KEY", "v14");
    assert_eq!(versions(&mut user), [14, 13]);
    assert_eq!(p.stored_versions(), 2);
    // A raised setting brings nothing back.
    p.set("max_versions", "5");
    let mut user = p.db.user(p.owner);
    put(&mut user, p.id, "KEY", "v15");
    assert_eq!(versions(&mut user), [15, 14, 13]);
    expect_error(get_version(&mut user, p.id, "KEY", 12), "PT410").detail("13");
    // One: only the current value.
    p.set("max_versions", "1");
    let mut user = p.db.user(p.owner);
    put(&mut user, p.id, "KEY", "v16");
    assert_eq!(versions(&mut user), [16]);
    assert_eq!(get(&mut user, p.id, "KEY"), "v16");
}

// --- expiry ----------------------------------------------------------------------------

#[test]
fn an_expired_secret_is_not_revealed() {
    let mut p = Project::new();
    put(&mut p.user, p.id, "KEY", "value");
    let info = one(&mut p.user, "secret_expire($1, 'KEY', now())", &[&p.id]);
    assert_eq!(info.get::<_, String>("status"), "expired");
    for call in ["secret_get($1, 'KEY')", "secret_get($1, 'KEY', 1)", "secret_get_bytes($1, 'KEY')"]
    {
        expect_error(all(&mut p.user, call, &[&p.id]), "PT410")
            .message("expired")
            .hint("secret_expire");
    }
    assert_eq!(status(&mut p.user, p.id, "KEY"), "expired");
    let version = one(&mut p.user, "secret_versions($1, 'KEY')", &[&p.id]);
    assert_eq!(version.get::<_, String>("status"), "expired");
    // NULL: never. So is infinity.
    let info = one(
        &mut p.user,
        "secret_expire(project_id => $1, name => 'KEY', expires_at => NULL)",
        &[&p.id],
    );
    assert_eq!(info.get::<_, String>("status"), "enabled");
    assert_eq!(info.get::<_, Option<SystemTime>>("expires_at"), None);
    assert_eq!(get(&mut p.user, p.id, "KEY"), "value");
    one(&mut p.user, "secret_expire($1, 'KEY', '-infinity')", &[&p.id]);
    expect_error(all(&mut p.user, "secret_get($1, 'KEY')", &[&p.id]), "PT410");
    let info = one(&mut p.user, "secret_expire($1, 'KEY', 'infinity')", &[&p.id]);
    assert_eq!(info.get::<_, String>("status"), "enabled");
    assert_eq!(get(&mut p.user, p.id, "KEY"), "value");
    // A new value lives again.
    one(&mut p.user, "secret_expire($1, 'KEY', now())", &[&p.id]);
    put(&mut p.user, p.id, "KEY", "next");
    assert_eq!(get(&mut p.user, p.id, "KEY"), "next");
    expect_error(get_version(&mut p.user, p.id, "KEY", 1), "PT410");
}

#[test]
fn a_secret_expires_when_its_time_comes() {
    let mut p = Project::new();
    let call = "secret_put($1, 'KEY', 'v', expires_at => clock_timestamp() + interval '400 ms')";
    let expires: SystemTime = one(&mut p.user, call, &[&p.id]).get("expires_at");
    assert_eq!(get(&mut p.user, p.id, "KEY"), "v");
    assert_eq!(status(&mut p.user, p.id, "KEY"), "enabled");
    let described = one(&mut p.user, "secret_describe($1, 'KEY')", &[&p.id]);
    assert_eq!(described.get::<_, SystemTime>("expires_at"), expires);
    // Also within a transaction, whose now() stands still.
    let mut transaction = p.user.transaction().unwrap();
    transaction.query_one("SELECT now()", &[]).unwrap();
    sleep(Duration::from_millis(450));
    let refused = transaction.query("SELECT meshhook_secrets.secret_get($1, 'KEY')", &[&p.id]);
    expect_error(refused, "PT410");
    drop(transaction);
    assert_eq!(status(&mut p.user, p.id, "KEY"), "expired");
}

#[test]
fn an_infinite_expiry_is_none() {
    let mut p = Project::new();
    let call = "secret_put($1, 'KEY', 'v', expires_at => 'infinity')";
    let row = one(&mut p.user, call, &[&p.id]);
    assert_eq!(row.get::<_, Option<SystemTime>>("expires_at"), None);
    let row = one(&mut p.user, "secret_describe($1, 'KEY')", &[&p.id]);
    assert_eq!(row.get::<_, Option<SystemTime>>("expires_at"), None);
    assert_eq!(get(&mut p.user, p.id, "KEY"), "v");
}

#[test]
fn due_secrets_are_told_most_urgent_first() {
    let mut p = Project::new();
    let other = p.db.project(p.owner);
    let foreign = p.db.project(Uuid::new_v4());
    let put_until = |client: &mut Client, project: Uuid, name: &str, until: &str| {
        let call = "secret_put($1, $2, 'v', expires_at => now() + $3::text::interval)";
        one(client, call, &[&project, &name, &until]);
    };
    put_until(&mut p.user, p.id, "WEEK", "7 days");
    put_until(&mut p.user, p.id, "DAY", "1 day");
    put_until(&mut p.user, p.id, "YEAR", "365 days");
    put_until(&mut p.user, p.id, "DELETED", "1 day");
    put_until(&mut p.user, other, "HOUR", "1 hour");
    put_until(&mut p.db.service(), foreign, "FOREIGN", "2 hours");
    put(&mut p.user, p.id, "NEVER", "v");
    put(&mut p.user, p.id, "GONE", "v");
    put(&mut p.user, p.id, "GONE", "w");
    one(&mut p.user, "secret_expire($1, 'GONE', now() - interval '1 day')", &[&p.id]);
    one(&mut p.user, "secret_delete($1, 'DELETED')", &[&p.id]);

    let due = |client: &mut Client, call: &str| -> Vec<String> {
        let told = |row: &Row| {
            let (name, status): (String, String) = (row.get("name"), row.get("status"));
            let version: i32 = row.get("version");
            let _: (Uuid, SystemTime) = (row.get("project_id"), row.get("expires_at"));
            format!("{name} {version} {status}")
        };
        all(client, call, &[]).unwrap().iter().map(told).collect()
    };
    let here = format!("'{}'", p.id);
    let mut user = p.db.user(p.owner);
    assert_eq!(
        due(&mut user, &format!("secret_due({here})")),
        ["GONE 2 expired", "DAY 1 due", "WEEK 1 due"]
    );
    assert_eq!(
        due(&mut user, "secret_due()"),
        ["GONE 2 expired", "HOUR 1 due", "DAY 1 due", "WEEK 1 due"]
    );
    let call = format!("secret_due({here}, within => interval '2 days')");
    assert_eq!(due(&mut user, &call), ["GONE 2 expired", "DAY 1 due"]);
    assert_eq!(due(&mut user, &format!("secret_due({here}, interval '0')")), ["GONE 2 expired"]);
    let call = format!("secret_due({here}, interval '1000 years')");
    assert_eq!(due(&mut user, &call).last().unwrap(), "YEAR 1 due");
    // The server side sees all projects.
    let all = due(&mut p.db.service(), "secret_due()");
    assert_eq!(all[..3], ["GONE 2 expired", "HOUR 1 due", "FOREIGN 1 due"]);
}

// --- generated values ----------------------------------------------------------------

#[test]
fn generated_values_have_the_length_and_characters_asked_for() {
    let mut p = Project::new();
    let is_of = |charset: &str, c: char| match charset {
        "base64url" => c.is_ascii_alphanumeric() || c == '-' || c == '_',
        "hex" => c.is_ascii_digit() || ('a'..='f').contains(&c),
        "alphanumeric" => c.is_ascii_alphanumeric(),
        "digits" => c.is_ascii_digit(),
        "printable" => c.is_ascii_graphic() && !['"', '\'', '`', '\\'].contains(&c),
        _ => panic!("{charset} is not promised"),
    };
    // How many different characters 4096 of them will show.
    let charsets =
        [("base64url", 64), ("hex", 16), ("alphanumeric", 62), ("digits", 10), ("printable", 90)];
    for (charset, different) in charsets {
        for length in [1, 7, 33, 4096] {
            let call = "secret_generate($1, $2, $3, $4)";
            one(&mut p.user, call, &[&p.id, &charset, &length, &charset]);
            let value = get(&mut p.user, p.id, charset);
            assert_eq!(value.len(), length as usize);
            assert!(value.chars().all(|c| is_of(charset, c)), "{charset}: {value}");
            if length == 4096 {
                let seen: std::collections::HashSet<char> = value.chars().collect();
                assert_eq!(seen.len(), different, "{charset}");
            }
        }
    }
}

#[test]
fn a_generated_value_is_new_each_time_and_never_returned() {
    let mut p = Project::new();
    let call = "SELECT v::text FROM meshhook_secrets.secret_generate($1, 'KEY') v";
    let answer: String = p.user.query_one(call, &[&p.id]).unwrap().get(0);
    let first = get(&mut p.user, p.id, "KEY");
    assert_eq!(first.len(), 32);
    assert!(!answer.contains(&first));
    let row = one(&mut p.user, "secret_generate($1, 'KEY')", &[&p.id]);
    assert_eq!(row.columns().len(), 5);
    assert_eq!(row.get::<_, i32>("version"), 2);
    assert_ne!(get(&mut p.user, p.id, "KEY"), first);
    assert_eq!(get_version(&mut p.user, p.id, "KEY", 1).unwrap(), first);

    // It takes what a put takes.
    let call = "secret_generate($1, 'KEY', 10, 'hex', cas => 2, description => 'd',
        expires_at => now() + interval '1 day', metadata => '{\"a\": 1}',
        previous_valid_for => interval '0')";
    let row = one(&mut p.user, call, &[&p.id]);
    assert_eq!(row.get::<_, i32>("version"), 3);
    assert!(row.get::<_, Option<SystemTime>>("expires_at").is_some());
    let row = one(&mut p.user, "secret_describe($1, 'KEY')", &[&p.id]);
    assert_eq!(row.get::<_, String>("description"), "d");
    assert_eq!(row.get::<_, Value>("metadata"), json!({"a": 1}));
    expect_error(get_version(&mut p.user, p.id, "KEY", 2), "PT410");
    expect_error(all(&mut p.user, "secret_generate($1, 'KEY', cas => 2)", &[&p.id]), "PT409");
}

// --- deletion ------------------------------------------------------------------------

#[test]
fn a_deleted_secret_comes_back_within_the_window() {
    let mut p = Project::new();
    put(&mut p.user, p.id, "KEY", "first");
    put(&mut p.user, p.id, "KEY", "second");
    let info = one(&mut p.user, "secret_delete($1, 'KEY')", &[&p.id]);
    assert_eq!(info.get::<_, String>("status"), "deleted");
    let deleted: SystemTime = info.get("deleted_at");
    let purge: SystemTime = info.get("purge_after");
    assert_eq!(purge.duration_since(deleted).unwrap(), Duration::from_secs(30 * 24 * 3600));

    for call in [
        "secret_get($1, 'KEY')",
        "secret_get($1, 'KEY', 1)",
        "secret_get_bytes($1, 'KEY')",
        "secret_put($1, 'KEY', 'third')",
        "secret_put($1, 'KEY', 'third', cas => 0)",
        "secret_put($1, 'KEY', 'third', cas => 2)",
        r"secret_put_bytes($1, 'KEY', '\x00')",
        "secret_generate($1, 'KEY')",
        "secret_rollback($1, 'KEY', 1)",
        "secret_expire($1, 'KEY', now())",
        "secret_delete($1, 'KEY')",
    ] {
        expect_error(all(&mut p.user, call, &[&p.id]), "PT410")
            .message("deleted")
            .hint("secret_undelete");
    }
    // It can still be looked at.
    assert_eq!(status(&mut p.user, p.id, "KEY"), "deleted");
    let rows = all(&mut p.user, "secret_versions($1, 'KEY')", &[&p.id]).unwrap();
    assert_eq!(column::<String>(&rows, 1), ["deleted", "deleted"]);

    let info = one(&mut p.user, "secret_undelete($1, 'KEY')", &[&p.id]);
    assert_eq!(info.get::<_, String>("status"), "enabled");
    assert_eq!(info.get::<_, Option<SystemTime>>("deleted_at"), None);
    assert_eq!(info.get::<_, Option<SystemTime>>("purge_after"), None);
    assert_eq!(get(&mut p.user, p.id, "KEY"), "second");
    assert_eq!(get_version(&mut p.user, p.id, "KEY", 1).unwrap(), "first");
    assert_eq!(put(&mut p.user, p.id, "KEY", "third"), 3);
}

#[test]
fn after_the_window_the_name_is_free_again() {
    let mut p = Project::new();
    let old: Uuid = one(
        &mut p.user,
        "secret_put($1, 'KEY', 'old', description => 'old', metadata => '{\"old\": true}')",
        &[&p.id],
    )
    .get("id");
    put(&mut p.user, p.id, "KEY", "older");
    p.set("recovery_window", "0");
    let mut user = p.db.user(p.owner);
    one(&mut user, "secret_delete($1, 'KEY')", &[&p.id]);

    let late = all(&mut user, "secret_undelete($1, 'KEY')", &[&p.id]);
    expect_error(late, "PT410").message("window").hint("secret_put");
    expect_error(all(&mut user, "secret_get($1, 'KEY')", &[&p.id]), "PT410");

    let row = one(&mut user, "secret_put($1, 'KEY', 'new', cas => 0)", &[&p.id]);
    assert_eq!(row.get::<_, i32>("version"), 1);
    assert_ne!(row.get::<_, Uuid>("id"), old);
    assert_eq!(get(&mut user, p.id, "KEY"), "new");
    // Nothing of the old one is left.
    let info = one(&mut user, "secret_describe($1, 'KEY')", &[&p.id]);
    assert_eq!(info.get::<_, Option<String>>("description"), None);
    assert_eq!(info.get::<_, Option<Value>>("metadata"), None);
    expect_error(get_version(&mut user, p.id, "KEY", 2), "PT404");
    assert_eq!(p.stored_versions(), 1);
}

#[test]
fn the_window_is_that_of_the_deletion() {
    let mut p = Project::new();
    put(&mut p.user, p.id, "KEY", "value");
    one(&mut p.user, "secret_delete($1, 'KEY')", &[&p.id]);
    // Shortening it afterwards takes nothing away.
    p.set("recovery_window", "0");
    let mut user = p.db.user(p.owner);
    expect_error(all(&mut user, "secret_put($1, 'KEY', 'new')", &[&p.id]), "PT410");
    one(&mut user, "secret_undelete($1, 'KEY')", &[&p.id]);
    assert_eq!(get(&mut user, p.id, "KEY"), "value");
}

#[test]
fn a_purged_secret_is_gone_for_good() {
    let mut p = Project::new();
    for name in ["LIVE", "DELETED", "OTHER"] {
        put(&mut p.user, p.id, name, "one");
        put(&mut p.user, p.id, name, "two");
    }
    one(&mut p.user, "secret_delete($1, 'DELETED')", &[&p.id]);
    for name in ["LIVE", "DELETED"] {
        one(&mut p.user, "secret_purge($1, $2, confirm => $2)", &[&p.id, &name]);
        for call in [
            "secret_get($1, $2)",
            "secret_get($1, $2, 1)",
            "secret_describe($1, $2)",
            "secret_versions($1, $2)",
            "secret_undelete($1, $2)",
            "secret_delete($1, $2)",
            "secret_purge($1, $2, $2)",
        ] {
            expect_error(all(&mut p.user, call, &[&p.id, &name]), "PT404").hint("secret_list");
        }
    }
    assert_eq!(p.stored_versions(), 2);
    assert_eq!(get(&mut p.user, p.id, "OTHER"), "two");
    assert_eq!(put(&mut p.user, p.id, "LIVE", "again"), 1);
    assert_eq!(get(&mut p.user, p.id, "LIVE"), "again");
}

// --- looking around ------------------------------------------------------------------

#[test]
fn description_and_metadata_stay_until_they_are_replaced() {
    let mut p = Project::new();
    let described = |client: &mut Client| -> (Option<String>, Option<Value>) {
        let row = one(client, "secret_describe($1, 'KEY')", &[&p.id]);
        (row.get("description"), row.get("metadata"))
    };
    put(&mut p.user, p.id, "KEY", "v");
    assert_eq!(described(&mut p.user), (None, None));
    let call = "secret_put($1, 'KEY', 'v', description => 'mail', metadata => '{\"team\": [1]}')";
    one(&mut p.user, call, &[&p.id]);
    let both = (Some("mail".to_owned()), Some(json!({"team": [1]})));
    assert_eq!(described(&mut p.user), both);

    put(&mut p.user, p.id, "KEY", "v");
    one(&mut p.user, "secret_generate($1, 'KEY')", &[&p.id]);
    one(&mut p.user, "secret_rollback($1, 'KEY', 1)", &[&p.id]);
    one(&mut p.user, "secret_expire($1, 'KEY', now() + interval '1 day')", &[&p.id]);
    one(&mut p.user, "secret_delete($1, 'KEY')", &[&p.id]);
    one(&mut p.user, "secret_undelete($1, 'KEY')", &[&p.id]);
    assert_eq!(described(&mut p.user), both);

    one(&mut p.user, "secret_put($1, 'KEY', 'v', description => '')", &[&p.id]);
    assert_eq!(described(&mut p.user), (Some(String::new()), both.1));
    one(&mut p.user, "secret_put($1, 'KEY', 'v', metadata => 'null')", &[&p.id]);
    assert_eq!(described(&mut p.user), (Some(String::new()), Some(Value::Null)));
}

#[test]
fn describe_tells_all_but_the_value() {
    let mut p = Project::new();
    let id: Uuid = one(&mut p.user, "secret_put($1, 'KEY', 'value-4711')", &[&p.id]).get("id");
    put(&mut p.db.service(), p.id, "KEY", "value-4712");
    let row = one(&mut p.user, "secret_describe($1, 'KEY')", &[&p.id]);
    assert_eq!(row.get::<_, Uuid>("id"), id);
    assert_eq!(row.get::<_, String>("name"), "KEY");
    assert_eq!(row.get::<_, i32>("version"), 2);
    assert_eq!(row.get::<_, String>("status"), "enabled");
    assert_eq!(row.get::<_, String>("created_by"), p.owner.to_string());
    assert!(row.get::<_, SystemTime>("created_at") < row.get::<_, SystemTime>("updated_at"));
    let rows = all(&mut p.user, "secret_versions($1, 'KEY')", &[&p.id]).unwrap();
    let authors: Vec<String> = rows.iter().map(|row| row.get("created_by")).collect();
    assert_eq!(authors, ["service_role".to_owned(), p.owner.to_string()]);
    for call in ["secret_describe", "secret_versions"] {
        let sql = format!("SELECT r::text FROM meshhook_secrets.{call}($1, 'KEY') r");
        for row in p.user.query(&sql, &[&p.id]).unwrap() {
            assert!(!row.get::<_, String>(0).contains("value-47"));
        }
        let missing = all(&mut p.user, &format!("{call}($1, 'NONE')"), &[&p.id]);
        expect_error(missing, "PT404").hint("secret_list");
    }
}

#[test]
fn lists_can_be_searched() {
    let mut p = Project::new();
    for (name, description) in [
        ("STRIPE_KEY", Some("Payments, 100% of them")),
        ("stripe.test", None),
        ("MAIL_TOKEN", Some("the Stripe receipts")),
        ("MAILXTOKEN", Some("")),
        ("OTHER", Some("back\\slash")),
    ] {
        let call = "secret_put($1, $2, 'needle', description => $3)";
        one(&mut p.user, call, &[&p.id, &name, &description]);
    }
    let mut found = |search: &str| -> Vec<String> {
        let rows = all(&mut p.user, "secret_list($1, search => $2)", &[&p.id, &search]).unwrap();
        column(&rows, 1)
    };
    assert_eq!(found("stripe"), ["MAIL_TOKEN", "STRIPE_KEY", "stripe.test"]);
    assert_eq!(found("STRIPE"), ["MAIL_TOKEN", "STRIPE_KEY", "stripe.test"]);
    assert_eq!(found("tok"), ["MAILXTOKEN", "MAIL_TOKEN"]);
    // Nothing in it is a pattern.
    assert_eq!(found("L_T"), ["MAIL_TOKEN"]);
    assert_eq!(found("%"), ["STRIPE_KEY"]);
    assert_eq!(found("S%Y"), [""; 0]);
    assert_eq!(found("\\"), ["OTHER"]);
    assert_eq!(found("."), ["stripe.test"]);
    assert_eq!(found("S.*Y"), [""; 0]);
    // The empty search is in everything; values are not searched.
    assert_eq!(found("").len(), 5);
    assert_eq!(found("needle"), [""; 0]);
}

#[test]
fn lists_show_deleted_secrets_only_when_asked() {
    let mut p = Project::new();
    let empty = all(&mut p.user, "secret_list($1)", &[&p.id]).unwrap();
    assert!(empty.is_empty());
    for name in ["A", "B", "C"] {
        put(&mut p.user, p.id, name, "v");
    }
    one(&mut p.user, "secret_delete($1, 'B')", &[&p.id]);
    one(&mut p.user, "secret_expire($1, 'C', now())", &[&p.id]);
    let mut listed = |call: &str| -> Vec<(String, String)> {
        let rows = all(&mut p.user, call, &[&p.id]).unwrap();
        rows.iter().map(|row| (row.get("name"), row.get("status"))).collect()
    };
    let (a, b, c) = (("A", "enabled"), ("B", "deleted"), ("C", "expired"));
    assert_eq!(listed("secret_list($1)"), [a, c].map(owned));
    assert_eq!(listed("secret_list($1, include_deleted => true)"), [a, b, c].map(owned));
}

#[test]
fn pages_show_every_name_once() {
    let mut p = Project::new();
    let put = "SELECT count(*) FROM generate_series(1, 250) i,
        meshhook_secrets.secret_put($1, 'Key-' || i, 'v')";
    p.user.query_one(put, &[&p.id]).unwrap();
    let mut page = |after: Option<&str>, size: i32| -> Vec<String> {
        let call = "secret_list($1, after => $2, page_size => $3)";
        column(&all(&mut p.user, call, &[&p.id, &after, &size]).unwrap(), 1)
    };
    let mut expected: Vec<String> = (1..=250).map(|i| format!("Key-{i}")).collect();
    expected.sort();
    for size in [1, 7, 100, 249, 250, 251, 1000] {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let names = page(seen.last().map(String::as_str), size);
            assert!(names.len() <= size as usize);
            if names.is_empty() {
                break;
            }
            seen.extend(names);
        }
        assert_eq!(seen, expected, "pages of {size}");
    }
    // A place between names is as good as a name.
    assert_eq!(page(Some("Key-1~"), 1), ["Key-2"]);
    assert_eq!(page(Some(""), 1), ["Key-1"]);
    assert_eq!(page(Some("zzz"), 10), [""; 0]);
    let rows = all(&mut p.user, "secret_list($1)", &[&p.id]).unwrap();
    assert_eq!(column::<String>(&rows, 1), expected[..100]);
}

// --- many at once ----------------------------------------------------------------------

#[test]
fn get_many_answers_each_name_by_itself() {
    let mut p = Project::new();
    for name in ["A", "B", "EXPIRED", "DELETED"] {
        put(&mut p.user, p.id, name, &format!("value of {name}"));
    }
    put(&mut p.user, p.id, "B", "second");
    put(&mut p.user, p.id, "EMPTY", "");
    one(&mut p.user, r"secret_put_bytes($1, 'BINARY', '\x00')", &[&p.id]);
    one(&mut p.user, "secret_expire($1, 'EXPIRED', now())", &[&p.id]);
    one(&mut p.user, "secret_delete($1, 'DELETED')", &[&p.id]);

    type Item = (String, Option<String>, Option<i32>, String);
    let item = |name: &str, value: Option<&str>, version: Option<i32>, status: &str| -> Item {
        (name.into(), value.map(Into::into), version, status.into())
    };
    let mut many = |names: Option<&[&str]>| -> Vec<Item> {
        let call = "secret_get_many($1, $2, purpose => 'run')";
        let rows = all(&mut p.user, call, &[&p.id, &names]).unwrap();
        let item =
            |row: &Row| (row.get("name"), row.get("value"), row.get("version"), row.get("status"));
        rows.iter().map(item).collect()
    };
    let names = ["B", "NONE", "EXPIRED", "A", "BINARY", "DELETED", "B", "EMPTY", "A", "NONE"];
    assert_eq!(
        many(Some(&names)),
        [
            item("B", Some("second"), Some(2), "ok"),
            item("NONE", None, None, "not_found"),
            item("EXPIRED", None, Some(1), "expired"),
            item("A", Some("value of A"), Some(1), "ok"),
            item("BINARY", None, Some(1), "binary"),
            item("DELETED", None, Some(1), "deleted"),
            item("EMPTY", Some(""), Some(1), "ok"),
        ]
    );
    assert_eq!(many(Some(&[])), []);
    // All: what is deleted is not among them; what cannot be read is told, not left out.
    assert_eq!(
        many(None),
        [
            item("A", Some("value of A"), Some(1), "ok"),
            item("B", Some("second"), Some(2), "ok"),
            item("BINARY", None, Some(1), "binary"),
            item("EMPTY", Some(""), Some(1), "ok"),
            item("EXPIRED", None, Some(1), "expired"),
        ]
    );
}

#[test]
fn get_many_writes_no_temporary_file() {
    let cluster =
        Cluster::builder().setting("log_temp_files", "0").setting("work_mem", "64kB").start();
    let mut p = Project::in_cluster(&cluster);
    let put = "SELECT count(*) FROM generate_series(1, 60) i,
        meshhook_secrets.secret_put($1, 'K' || i, repeat(chr(64 + i), 60000))";
    p.user.query_one(put, &[&p.id]).unwrap();
    let names: Vec<String> = (1..=60).map(|i| format!("K{i}")).collect();
    let calls: [&[&(dyn ToSql + Sync)]; 2] = [&[&p.id], &[&p.id, &names]];
    for parameters in calls {
        let call = ["secret_get_many($1)", "secret_get_many($1, $2)"][parameters.len() - 1];
        let rows = all(&mut p.user, call, parameters).unwrap();
        assert_eq!(rows.len(), 60);
        for row in rows {
            let (name, value): (String, String) = (row.get("name"), row.get("value"));
            let letter = char::from(64 + name[1..].parse::<u8>().unwrap());
            assert_eq!(value.len(), 60000);
            assert!(value.chars().all(|c| c == letter));
            assert_eq!(row.get::<_, String>("status"), "ok");
        }
    }
    assert!(!cluster.log().contains("temporary file"));
    // The log would tell: a function of the server's own does write one.
    let sql = "SELECT * FROM regexp_split_to_table(repeat('x,', 1000000), ',')";
    p.user.query(sql, &[]).unwrap();
    assert!(cluster.log().contains("temporary file"));
}

// --- transactions ----------------------------------------------------------------------

#[test]
fn a_rollback_undoes_every_kind_of_write() {
    let mut p = Project::new();
    for name in ["A", "B", "C", "D"] {
        put(&mut p.user, p.id, name, "one");
        put(&mut p.user, p.id, name, "two");
    }
    one(&mut p.user, "secret_delete($1, 'D')", &[&p.id]);
    let before = p.stored();
    for call in [
        "secret_put($1, 'A', 'three', description => 'd')",
        "secret_put($1, 'NEW', 'one')",
        r"secret_put_bytes($1, 'A', '\x00', previous_valid_for => interval '0')",
        "secret_generate($1, 'A')",
        "secret_rollback($1, 'A', 1)",
        "secret_delete($1, 'B')",
        "secret_undelete($1, 'D')",
        "secret_purge($1, 'C', 'C')",
        "secret_expire($1, 'A', now())",
    ] {
        let mut transaction = p.user.transaction().unwrap();
        transaction.query(&format!("SELECT * FROM meshhook_secrets.{call}"), &[&p.id]).unwrap();
        transaction.rollback().unwrap();
        assert_eq!(p.stored(), before, "{call}");
    }
    // As does a savepoint, while the rest of the transaction stays.
    let mut transaction = p.user.transaction().unwrap();
    let put = "SELECT version FROM meshhook_secrets.secret_put($1, 'A', $2)";
    assert_eq!(transaction.query_one(put, &[&p.id, &"three"]).unwrap().get::<_, i32>(0), 3);
    let mut nested = transaction.savepoint("s").unwrap();
    assert_eq!(nested.query_one(put, &[&p.id, &"lost"]).unwrap().get::<_, i32>(0), 4);
    nested.rollback().unwrap();
    let get = "SELECT meshhook_secrets.secret_get($1, 'A')";
    let value: String = transaction.query_one(get, &[&p.id]).unwrap().get(0);
    assert_eq!(value, "three");
    transaction.commit().unwrap();
    assert_eq!(get_version(&mut p.user, p.id, "A", 3).unwrap(), "three");
    expect_error(get_version(&mut p.user, p.id, "A", 4), "PT404");
}

#[test]
fn a_transaction_sees_its_own_writes() {
    for level in [
        IsolationLevel::ReadCommitted,
        IsolationLevel::RepeatableRead,
        IsolationLevel::Serializable,
    ] {
        let mut p = Project::new();
        let mut transaction = p.user.build_transaction().isolation_level(level).start().unwrap();
        let mut ask = |sql: &str| -> String {
            transaction.query_one(&format!("SELECT {sql}"), &[&p.id]).unwrap().get(0)
        };
        let put = "(meshhook_secrets.secret_put($1, 'A', 'one')).version::text";
        assert_eq!(ask(put), "1");
        assert_eq!(ask("meshhook_secrets.secret_get($1, 'A')"), "one");
        assert_eq!(ask("(meshhook_secrets.secret_rollback($1, 'A', 1)).version::text"), "2");
        assert_eq!(ask("(meshhook_secrets.secret_expire($1, 'A', now())).status"), "expired");
        assert_eq!(ask("(meshhook_secrets.secret_delete($1, 'A')).status"), "deleted");
        assert_eq!(ask("(meshhook_secrets.secret_undelete($1, 'A')).status"), "expired");
        assert_eq!(ask("meshhook_secrets.secret_get($1, 'A', 1)"), "one");
        transaction.commit().unwrap();
        assert_eq!(get_version(&mut p.user, p.id, "A", 1).unwrap(), "one");
    }
}

#[test]
fn a_fixed_snapshot_shows_what_was() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let mut p = Project::new();
        put(&mut p.user, p.id, "A", "one");
        put(&mut p.user, p.id, "PURGED", "kept");
        let mut other = p.db.service();
        let mut transaction =
            p.user.build_transaction().isolation_level(level).read_only(true).start().unwrap();
        let mut ask = |name: &str| {
            let sql = "SELECT meshhook_secrets.secret_get($1, $2)";
            transaction.query_one(sql, &[&p.id, &name]).map(|row| row.get::<_, String>(0))
        };
        assert_eq!(ask("A").unwrap(), "one");
        put(&mut other, p.id, "A", "two");
        put(&mut other, p.id, "NEW", "new");
        one(&mut other, "secret_purge($1, 'PURGED', 'PURGED')", &[&p.id]);
        assert_eq!(ask("A").unwrap(), "one");
        assert_eq!(ask("PURGED").unwrap(), "kept");
        expect_error(ask("NEW"), "PT404");
        drop(transaction);
        assert_eq!(get(&mut p.user, p.id, "A"), "two");
    }
}

#[test]
fn keys_made_after_a_snapshot_serve_its_transaction() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let mut p = Project::new();
        let mut transaction = p.user.build_transaction().isolation_level(level).start().unwrap();
        transaction.query_one("SELECT count(*) FROM public.projects", &[]).unwrap();
        // Meanwhile another session is the first to need keys here.
        put(&mut p.db.service(), p.id, "THEIRS", "theirs");
        let put = "SELECT meshhook_secrets.secret_put($1, 'OURS', 'ours')";
        transaction.query_one(put, &[&p.id]).unwrap();
        let get = "SELECT meshhook_secrets.secret_get($1, 'OURS')";
        let ours: String = transaction.query_one(get, &[&p.id]).unwrap().get(0);
        assert_eq!(ours, "ours");
        transaction.commit().unwrap();
        assert_eq!(get_many(&mut p.user, p.id), ["ours", "theirs"]);
    }
}

#[test]
fn reads_assign_no_transaction_id() {
    let mut p = Project::new();
    put(&mut p.user, p.id, "A", "v");
    let id = "SELECT pg_current_xact_id_if_assigned()::text";
    let mut transaction = p.user.transaction().unwrap();
    for call in READS {
        transaction.query(&format!("SELECT * FROM meshhook_secrets.{call}"), &[&p.id]).unwrap();
        let assigned: Option<String> = transaction.query_one(id, &[]).unwrap().get(0);
        assert_eq!(assigned, None, "{call}");
    }
    // A write does.
    let put = "SELECT meshhook_secrets.secret_put($1, 'A', 'w')";
    transaction.query_one(put, &[&p.id]).unwrap();
    let assigned: Option<String> = transaction.query_one(id, &[]).unwrap().get(0);
    assert!(assigned.is_some());
}

#[test]
fn a_read_only_transaction_reads_and_does_not_write() {
    let mut p = Project::new();
    put(&mut p.user, p.id, "A", "v");
    put(&mut p.user, p.id, "D", "v");
    one(&mut p.user, "secret_delete($1, 'D')", &[&p.id]);
    let before = p.stored();
    for call in READS {
        let mut reader = p.user.build_transaction().read_only(true).start().unwrap();
        reader.query(&format!("SELECT * FROM meshhook_secrets.{call}"), &[&p.id]).unwrap();
    }
    for call in [
        "secret_put($1, 'A', 'w')",
        "secret_put($1, 'NEW', 'w')",
        r"secret_put_bytes($1, 'A', '\x00')",
        "secret_generate($1, 'A')",
        "secret_rollback($1, 'A', 1)",
        "secret_delete($1, 'A')",
        "secret_undelete($1, 'D')",
        "secret_purge($1, 'A', 'A')",
        "secret_expire($1, 'A', now())",
    ] {
        let mut reader = p.user.build_transaction().read_only(true).start().unwrap();
        let sql = format!("SELECT * FROM meshhook_secrets.{call}");
        expect_error(reader.query(&sql, &[&p.id]), "25006").hint("primary");
    }
    assert_eq!(p.stored(), before);
}

#[test]
fn values_survive_a_restart() {
    let cluster = Cluster::builder().start();
    let mut p = Project::in_cluster(&cluster);
    put(&mut p.user, p.id, "A", "one");
    put(&mut p.user, p.id, "A", "two");
    cluster.restart();
    let mut user = p.db.user(p.owner);
    assert_eq!(get(&mut user, p.id, "A"), "two");
    assert_eq!(get_version(&mut user, p.id, "A", 1).unwrap(), "one");
    assert_eq!(put(&mut user, p.id, "A", "three"), 3);
    assert_eq!(get_many(&mut user, p.id), ["three"]);
}

// --- ways to call ------------------------------------------------------------------------

#[test]
fn prepared_statements_serve_again_and_again() {
    let mut p = Project::new();
    let put = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";
    let put = p.user.prepare(put).unwrap();
    let get = p.user.prepare("SELECT meshhook_secrets.secret_get($1, $2)").unwrap();
    // Long enough for generic plans, of the driver's statement and of ours.
    for turn in 1..=15 {
        let value = format!("value {turn}");
        let name = format!("K{}", turn % 3);
        p.user.query_one(&put, &[&p.id, &name, &value]).unwrap();
        let found: String = p.user.query_one(&get, &[&p.id, &name]).unwrap().get(0);
        assert_eq!(found, value);
    }
    // The same in SQL, with text for everything.
    let id = p.id;
    p.user
        .batch_execute("PREPARE get(uuid, text) AS SELECT meshhook_secrets.secret_get($1, $2)")
        .unwrap();
    for _ in 0..15 {
        let execute = format!("EXECUTE get('{id}', 'K0')");
        assert_eq!(simple(&mut p.user, &execute), "value 15");
    }
}

#[test]
fn a_kept_statement_follows_the_role() {
    let mut p = Project::new();
    put(&mut p.user, p.id, "A", "v");
    let mut client = p.db.service();
    let get = client.prepare("SELECT meshhook_secrets.secret_get($1, 'A')").unwrap();
    let mut as_who = |role: &str, claims: Value| {
        let sql =
            "SELECT set_config('request.jwt.claims', $1, false), set_config('role', $2, false)";
        client.query_one(sql, &[&claims.to_string(), &role]).unwrap();
        client.query_one(&get, &[&p.id]).map(|row| row.get::<_, String>(0))
    };
    for _ in 0..8 {
        assert_eq!(as_who("authenticated", json!({"sub": p.owner})).unwrap(), "v");
        expect_error(as_who("authenticated", json!({"sub": Uuid::new_v4()})), "42501");
        assert_eq!(as_who("service_role", json!({})).unwrap(), "v");
        expect_error(as_who("anon", json!({})), "42501");
    }
}

#[test]
fn plpgsql_functions_put_get_and_catch() {
    let mut p = Project::new();
    p.db.superuser()
        .batch_execute(
            "CREATE FUNCTION public.turns(project uuid, turns int) RETURNS text LANGUAGE plpgsql AS $$
             DECLARE
               written meshhook_secrets.secret_version_info;
               value text;
               caught text := '';
               item record;
             BEGIN
               FOR i IN 1..turns LOOP
                 written := meshhook_secrets.secret_put(project, 'KEY', 'value ' || i);
                 ASSERT written.version = i AND written.name = 'KEY';
                 value := meshhook_secrets.secret_get(project, 'KEY');
                 ASSERT value = 'value ' || i;
               END LOOP;
               BEGIN
                 PERFORM meshhook_secrets.secret_put(project, 'KEY', 'undone');
                 PERFORM meshhook_secrets.secret_get(project, 'NONE');
               EXCEPTION WHEN SQLSTATE 'PT404' THEN
                 caught := SQLERRM;
               END;
               FOR item IN SELECT * FROM meshhook_secrets.secret_get_many(project, ARRAY['KEY', 'NONE']) LOOP
                 caught := caught || ', ' || item.status;
               END LOOP;
               RETURN caught || ', ' || meshhook_secrets.secret_get(project, 'KEY');
             END $$",
        )
        .unwrap();
    let sql = "SELECT public.turns($1, 12)";
    let told: String = p.user.query_one(sql, &[&p.id]).unwrap().get(0);
    assert_eq!(told, "secret not found, ok, not_found, value 12");
    assert_eq!(get_version(&mut p.user, p.id, "KEY", 12).unwrap(), "value 12");
    expect_error(get_version(&mut p.user, p.id, "KEY", 13), "PT404");
}

#[test]
fn sql_may_join_and_cross_apply_the_functions() {
    let mut p = Project::new();
    for name in ["A", "B"] {
        put(&mut p.user, p.id, name, &name.to_lowercase());
    }
    let sql = "SELECT string_agg(l.name || '=' || meshhook_secrets.secret_get($1, l.name), ',' ORDER BY l.name)
        FROM meshhook_secrets.secret_list($1) l JOIN meshhook_secrets.secret_versions($1, 'A') v ON true";
    let joined: String = p.user.query_one(sql, &[&p.id]).unwrap().get(0);
    assert_eq!(joined, "A=a,B=b");
    let sql = "SELECT string_agg(m.value, ',' ORDER BY i, m.name) FROM generate_series(1, 2) i,
        LATERAL meshhook_secrets.secret_get_many($1, ARRAY['A', 'B']) m";
    let joined: String = p.user.query_one(sql, &[&p.id]).unwrap().get(0);
    assert_eq!(joined, "a,b,a,b");
    // In the target list, and through a cursor.
    let sql = "SELECT (meshhook_secrets.secret_get_many($1)).value";
    let rows = p.user.query(sql, &[&p.id]).unwrap();
    assert_eq!(column::<String>(&rows, 0), ["a", "b"]);
    let mut transaction = p.user.transaction().unwrap();
    let sql = "SELECT value FROM meshhook_secrets.secret_get_many($1)";
    let portal = transaction.bind(sql, &[&p.id]).unwrap();
    for value in ["a", "b"] {
        assert_eq!(column::<String>(&transaction.query_portal(&portal, 1).unwrap(), 0), [value]);
    }
}

#[test]
fn arguments_may_come_from_tables() {
    let mut p = Project::new();
    // Short, compressed, and stored out of line.
    p.db.superuser()
        .batch_execute(
            "CREATE TABLE public.source (name text, value text, bytes bytea, description text, metadata jsonb, names text[]);
             ALTER TABLE public.source ALTER COLUMN value SET STORAGE EXTERNAL, ALTER COLUMN bytes SET STORAGE EXTERNAL;
             INSERT INTO public.source SELECT name, value, value::bytea, left(value, 1024), jsonb_build_object('value', left(value, 12000)),
                 ARRAY(SELECT 'N' || i FROM generate_series(1, 900) i) || ARRAY['SHORT', 'LONG', 'DENSE']
               FROM (VALUES ('SHORT', 's'), ('LONG', repeat('long', 10000)),
                 ('DENSE', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1500) i))) v(name, value)",
        )
        .unwrap();
    let sql = "SELECT (meshhook_secrets.secret_put($1, s.name, s.value, description => s.description,
            metadata => s.metadata)).version,
        (meshhook_secrets.secret_put_bytes($1, s.name || '_BYTES', s.bytes)).version FROM public.source s";
    assert_eq!(p.user.query(sql, &[&p.id]).unwrap().len(), 3);
    let sql = "SELECT count(*) FROM public.source s, meshhook_secrets.secret_describe($1, s.name) d
        WHERE meshhook_secrets.secret_get($1, s.name) = s.value
          AND meshhook_secrets.secret_get_bytes($1, s.name || '_BYTES') = s.bytes
          AND d.description = s.description AND d.metadata = s.metadata";
    assert_eq!(p.user.query_one(sql, &[&p.id]).unwrap().get::<_, i64>(0), 3);
    let sql =
        "SELECT count(*) FROM public.source s, meshhook_secrets.secret_get_many($1, s.names) m
        JOIN public.source t ON t.name = m.name AND t.value = m.value";
    assert_eq!(p.user.query_one(sql, &[&p.id]).unwrap().get::<_, i64>(0), 9);
}

#[test]
fn a_project_and_its_first_secret_may_be_made_in_one_transaction() {
    for level in [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead] {
        let mut p = Project::new();
        let mut transaction = p.user.build_transaction().isolation_level(level).start().unwrap();
        let sql = "INSERT INTO public.projects (name) VALUES ('new') RETURNING id";
        let project: Uuid = transaction.query_one(sql, &[]).unwrap().get(0);
        let sql = "SELECT meshhook_secrets.secret_put($1, 'KEY', 'v')";
        transaction.query_one(sql, &[&project]).unwrap();
        let sql = "SELECT meshhook_secrets.secret_get($1, 'KEY')";
        let value: String = transaction.query_one(sql, &[&project]).unwrap().get(0);
        assert_eq!(value, "v");
        transaction.commit().unwrap();
        assert_eq!(get(&mut p.user, project, "KEY"), "v");
    }
}

#[test]
fn values_travel_in_the_encoding_of_the_client() {
    let p = Project::new();
    let id = p.id;
    let mut psql = p.db.cluster().command("psql");
    psql.env("PGCLIENTENCODING", "LATIN1").args(["-XAtq", "-d", p.db.name(), "-c"]);
    // The bytes c3 a9 are two characters there.
    psql.arg(format!("SELECT version FROM meshhook_secrets.secret_put('{id}', 'A', 'é')"));
    assert_eq!(run(&mut psql), "1\n");
    assert_eq!(get(&mut p.db.service(), id, "A"), "Ã©");
}

#[test]
fn postgrest_calls_by_name_with_a_json_body() {
    let p = Project::new();
    let post = |function: &str, arguments: &[(&str, &str)], scalar: bool, body: Value| {
        postgrest(&p.db, p.owner, function, arguments, scalar, &body)
    };
    let put = [("project_id", "uuid"), ("name", "text"), ("value", "text"), ("metadata", "jsonb")];
    let body = json!({"project_id": p.id, "name": "A", "value": "välue", "metadata": {"a": 1}});
    let written = post("secret_put", &put, false, body).unwrap();
    assert_eq!(written[0]["version"], 1);
    assert_eq!(written[0]["name"], "A");

    let get = [("project_id", "uuid"), ("name", "text")];
    let body = json!({"project_id": p.id, "name": "A"});
    assert_eq!(post("secret_get", &get, true, body.clone()).unwrap(), json!(["välue"]));
    let many = [("project_id", "uuid"), ("names", "text[]")];
    let names = json!({"project_id": p.id, "names": ["A", "B"]});
    let rows = post("secret_get_many", &many, false, names).unwrap();
    assert_eq!(rows[0], json!({"name": "A", "value": "välue", "version": 1, "status": "ok"}));
    assert_eq!(
        rows[1],
        json!({"name": "B", "value": null, "version": null, "status": "not_found"})
    );
    let listed = post("secret_list", &[("project_id", "uuid")], false, json!({"project_id": p.id}));
    assert_eq!(listed.unwrap()[0]["metadata"], json!({"a": 1}));
    assert_eq!(post("secret_delete", &get, false, body.clone()).unwrap()[0]["status"], "deleted");
    // What goes wrong has the status as SQLSTATE.
    expect_error(post("secret_get", &get, true, body), "PT410");
    let body = json!({"project_id": Uuid::new_v4(), "name": "A"});
    expect_error(post("secret_get", &get, true, body), "42501");
    // A key that is missing from the body is NULL.
    expect_error(post("secret_get", &get, true, json!({"project_id": p.id})), "22004");
}

#[test]
fn psql_puts_and_gets() {
    let mut p = Project::new();
    let id = p.id;
    let mut psql = p.db.cluster().command("psql");
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "authenticator", "-d", p.db.name()]);
    let claims = json!({"sub": p.owner});
    for sql in [
        "SET ROLE authenticated".to_owned(),
        format!("SET request.jwt.claims = '{claims}'"),
        format!("SELECT version FROM meshhook_secrets.secret_put('{id}', 'A', 'from psql')"),
        format!("SELECT meshhook_secrets.secret_get('{id}', 'A')"),
        format!("SELECT meshhook_secrets.secret_purge('{id}', 'A', 'A')"),
        format!("SELECT name, status FROM meshhook_secrets.secret_get_many('{id}', '{{A}}')"),
    ] {
        psql.args(["-c", &sql]);
    }
    assert_eq!(run(&mut psql), "1\nfrom psql\n\nA|not_found\n");
    put(&mut p.user, p.id, "A", "after");
    let mut copy: Command = p.db.cluster().command("psql");
    copy.args(["-XAtq", "-d", p.db.name(), "-c"]);
    copy.arg(format!("COPY (SELECT meshhook_secrets.secret_get('{id}', 'A')) TO STDOUT"));
    assert_eq!(run(&mut copy), "after\n");
}

// --- helpers -------------------------------------------------------------------------------

/// What only reads, for a project with a secret `A`.
const READS: [&str; 9] = [
    "secret_get($1, 'A')",
    "secret_get($1, 'A', 1)",
    "secret_get_bytes($1, 'A', purpose => 'copy')",
    "secret_get_many($1)",
    "secret_get_many($1, ARRAY['A', 'NONE'])",
    "secret_list($1, include_deleted => true)",
    "secret_describe($1, 'A')",
    "secret_versions($1, 'A')",
    "secret_due($1)",
];

/// A project in a database of its own, and its owner, signed in.
struct Project<'c> {
    user: Client,
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
        Self { user: db.user(owner), id: db.project(owner), owner, db }
    }

    /// Changes a setting of the extension for new sessions of this database.
    fn set(&self, name: &str, value: &str) {
        let db = self.db.name();
        let sql = format!("ALTER DATABASE {db} SET meshhook_secrets.{name} = {value}");
        self.db.superuser().batch_execute(&sql).unwrap();
    }

    /// Everything that is stored.
    fn stored(&self) -> Vec<String> {
        let mut superuser = self.db.superuser();
        let mut rows = Vec::new();
        for table in ["kek_storage", "data_keys", "project_secrets", "secret_versions", "settings"]
        {
            let sql = format!("SELECT t::text FROM meshhook_secrets.{table} t ORDER BY 1");
            rows.extend(column::<String>(&superuser.query(&sql, &[]).unwrap(), 0));
        }
        rows
    }

    fn stored_versions(&self) -> i64 {
        let sql = "SELECT count(*) FROM meshhook_secrets.secret_versions";
        self.db.superuser().query_one(sql, &[]).unwrap().get(0)
    }
}

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The rows of a function of ours.
fn all(
    client: &mut Client,
    call: &str,
    parameters: Parameters,
) -> Result<Vec<Row>, postgres::Error> {
    client.query(&format!("SELECT * FROM meshhook_secrets.{call}"), parameters)
}

/// The only row of a function of ours.
#[track_caller]
fn one(client: &mut Client, call: &str, parameters: Parameters) -> Row {
    let mut rows =
        all(client, call, parameters).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    assert_eq!(rows.len(), 1, "{call}");
    rows.remove(0)
}

#[track_caller]
fn put(client: &mut Client, project: Uuid, name: &str, value: &str) -> i32 {
    one(client, "secret_put($1, $2, $3)", &[&project, &name, &value]).get("version")
}

#[track_caller]
fn get(client: &mut Client, project: Uuid, name: &str) -> String {
    one(client, "secret_get($1, $2)", &[&project, &name]).get(0)
}

#[track_caller]
fn get_bytes(client: &mut Client, project: Uuid, name: &str) -> Vec<u8> {
    one(client, "secret_get_bytes($1, $2)", &[&project, &name]).get(0)
}

fn get_version(
    client: &mut Client,
    project: Uuid,
    name: &str,
    version: i32,
) -> Result<String, postgres::Error> {
    all(client, "secret_get($1, $2, $3)", &[&project, &name, &version]).map(|rows| rows[0].get(0))
}

/// The values of all secrets, which must be readable, by name.
#[track_caller]
fn get_many(client: &mut Client, project: Uuid) -> Vec<String> {
    column(&all(client, "secret_get_many($1)", &[&project]).unwrap(), 1)
}

#[track_caller]
fn status(client: &mut Client, project: Uuid, name: &str) -> String {
    one(client, "secret_describe($1, $2)", &[&project, &name]).get("status")
}

fn column<T: for<'a> FromSql<'a>>(rows: &[Row], index: usize) -> Vec<T> {
    rows.iter().map(|row| row.get(index)).collect()
}

fn owned((name, status): (&str, &str)) -> (String, String) {
    (name.into(), status.into())
}

fn server_time(client: &mut Client) -> SystemTime {
    client.query_one("SELECT clock_timestamp()", &[]).unwrap().get(0)
}

/// The only field of a simple query, which travels as text.
fn simple(client: &mut Client, sql: &str) -> String {
    let messages = client.simple_query(sql).unwrap();
    let field = messages.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    field.expect("a row with a field").to_owned()
}

/// A call as PostgREST 12 makes it: one transaction, claims and role set locally, a JSON body that
/// is taken apart by json_to_record, arguments by name, and the answer as JSON.
fn postgrest(
    db: &Database,
    user: Uuid,
    function: &str,
    arguments: &[(&str, &str)],
    scalar: bool,
    body: &Value,
) -> Result<Value, postgres::Error> {
    let list = |each: &dyn Fn(&(&str, &str)) -> String| -> String {
        arguments.iter().map(each).collect::<Vec<_>>().join(", ")
    };
    let fields = list(&|(name, _)| format!("\"{name}\""));
    let types = list(&|(name, kind)| format!("\"{name}\" {kind}"));
    let named = list(&|(name, _)| format!("\"{name}\" := pgrst_body.\"{name}\""));
    let call = format!("\"meshhook_secrets\".\"{function}\"({named})");
    let (call, result, row) = match scalar {
        true => (
            format!("(SELECT {call} pgrst_scalar)"),
            "pgrst_call.pgrst_scalar",
            "_postgrest_t.pgrst_scalar",
        ),
        false => (call, "pgrst_call.*", "_postgrest_t"),
    };
    let sql = format!(
        "WITH pgrst_source AS (SELECT {result} FROM (SELECT $1 AS json_data) pgrst_payload,
           LATERAL (SELECT {fields} FROM json_to_record(pgrst_payload.json_data) AS _({types}) LIMIT 1) pgrst_body,
           LATERAL {call} pgrst_call)
         SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total,
           coalesce(json_agg({row}), '[]') AS body
         FROM (SELECT \"{function}\".* FROM pgrst_source AS \"{function}\") _postgrest_t"
    );
    let mut client = db.connect("authenticator");
    let mut transaction = client.transaction()?;
    let claims = json!({"role": "authenticated", "sub": user}).to_string();
    let sets = "SELECT set_config('search_path', '\"meshhook_secrets\", \"public\"', true),
        set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true)";
    transaction.query_one(sets, &[&claims])?;
    let statement = transaction.prepare_typed(&sql, &[postgres::types::Type::JSON])?;
    let answer: Value = transaction.query_one(&statement, &[&Json(body)])?.get("body");
    transaction.commit()?;
    Ok(answer)
}
