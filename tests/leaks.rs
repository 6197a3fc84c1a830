//! No file of the server ever holds a value or a key: not the heap, not the WAL, not what logical
//! decoding makes of it, no temporary file, no server log, whatever becomes of the transaction that
//! brought the value; nor does an error, a plan or a statistics view. Values come as bind
//! parameters here, as drivers send them.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use memchr::memmem;
use meshhook_secrets_core::dek_status::DekStatus;
use meshhook_secrets_core::identity::{DekIdentity, KekIdentity};
use meshhook_secrets_core::kek_status::KekStatus;
use meshhook_secrets_core::root_key;
use postgres::Client;
use support::{Cluster, Database, KEY_A, expect_error};
use uuid::Uuid;

// --- files ------------------------------------------------------------------------------

#[test]
fn a_value_in_an_ordinary_table_would_be_found() {
    let db = cluster().database();
    let mut superuser = db.superuser();
    let marker = random_text();
    superuser.batch_execute("CREATE TABLE ordinary (value text)").unwrap();
    superuser.execute("INSERT INTO ordinary VALUES ($1)", &[&marker]).unwrap();
    superuser.batch_execute("CHECKPOINT").unwrap();
    let files = cluster().files_containing(marker.as_bytes());
    for place in ["/base/", "/pg_wal/"] {
        assert!(files.iter().any(|file| file.to_string_lossy().contains(place)), "{files:?}");
    }
}

#[test]
fn no_file_holds_a_value_whatever_is_done_with_it() {
    let scene = Scene::new(cluster());
    let (project, name) = (scene.project, "TOKEN");
    let mut user = scene.db.user(scene.alice);
    let mut superuser = scene.db.superuser();
    superuser.batch_execute("SET meshhook_secrets.max_versions = 2").unwrap();
    let text = random_text();
    let bytes = random_text().into_bytes();
    let long = format!("{text}{}{text}", "-filler-".repeat(7000));

    for value in [&text, &long, &text] {
        user.query(PUT, &[&project, &name, value]).unwrap();
        // As superuser: only two versions are kept, the older ones are destroyed.
        superuser.query(PUT, &[&project, &name, value]).unwrap();
    }
    user.query(PUT_BYTES, &[&project, &"BYTES", &bytes]).unwrap();
    assert_eq!(user.query_one(GET, &[&project, &name]).unwrap().get::<_, &str>(0), text);

    // Writes that never happened.
    for name in ["TOKEN", "NEVER"] {
        let mut transaction = user.transaction().unwrap();
        transaction.query(PUT, &[&project, &name, &long]).unwrap();
        transaction.query(PUT_BYTES, &[&project, &"BYTES", &bytes]).unwrap();
        superuser.batch_execute("CHECKPOINT").unwrap();
        transaction.rollback().unwrap();
        let mut transaction = user.transaction().unwrap();
        let mut savepoint = transaction.savepoint("s").unwrap();
        savepoint.query(PUT, &[&project, &name, &text]).unwrap();
        savepoint.rollback().unwrap();
        transaction.commit().unwrap();
    }
    user.batch_execute("BEGIN").unwrap();
    user.query(PUT, &[&project, &"PREPARED", &long]).unwrap();
    user.batch_execute("PREPARE TRANSACTION 'leaks'").unwrap();
    for statement in ["CHECKPOINT", "ROLLBACK PREPARED 'leaks'"] {
        superuser.batch_execute(statement).unwrap();
    }
    expect_error(user.query(GET, &[&project, &"NEVER"]), "PT404");
    expect_error(user.query(GET, &[&project, &"PREPARED"]), "PT404");

    // The rest of its life.
    for call in [
        "SELECT meshhook_secrets.secret_expire($1, $2, now() + interval '1 day')",
        "SELECT meshhook_secrets.secret_rollback($1, $2, 5)",
        "SELECT meshhook_secrets.secret_delete($1, $2)",
        "SELECT meshhook_secrets.secret_undelete($1, $2)",
        "SELECT meshhook_secrets.secret_purge($1, $2, $2)",
    ] {
        user.query(call, &[&project, &name]).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    user.query(PUT, &[&project, &name, &long]).unwrap();
    superuser.batch_execute("VACUUM").unwrap();
    scene.db.delete_project(project);
    for statement in ["VACUUM FULL", "SELECT pg_switch_wal()", "CHECKPOINT"] {
        superuser.batch_execute(statement).unwrap();
    }

    for value in [text.as_bytes(), &bytes] {
        assert_eq!(traces(value), Vec::<PathBuf>::new());
    }
}

#[test]
fn no_file_holds_a_key() {
    let scene = Scene::new(cluster());
    let mut user = scene.db.user(scene.alice);
    let mut superuser = scene.db.superuser();
    user.query(PUT, &[&scene.project, &"TOKEN", &"value"]).unwrap();
    user.query(GET, &[&scene.project, &"TOKEN"]).unwrap();
    superuser.batch_execute("CHECKPOINT").unwrap();

    // The root key, as it is in its file, and the keys below it.
    let file = fs::read_to_string(cluster().root_key_path()).unwrap();
    assert!(file.contains(KEY_A), "found where it must be");
    let root = root_key::parse(KEY_A.as_bytes()).unwrap().remove(0);
    let query = "SELECT k.root_key_id, k.kek_encrypted, d.dek_encrypted
        FROM meshhook_secrets.kek_storage k JOIN meshhook_secrets.data_keys d USING (kek_id)
        WHERE d.project_id = $1";
    let row = superuser.query_one(query, &[&scene.project]).unwrap();
    let identity = KekIdentity { kek_id: 1, root_key_id: row.get(0), status: KekStatus::Active };
    let kek = root.unwrap(row.get(1), &identity).unwrap();
    let identity = DekIdentity {
        project_id: *scene.project.as_bytes(),
        dek_version: 1,
        kek_id: 1,
        status: DekStatus::Active,
    };
    let dek = kek.unwrap(row.get(2), &identity).unwrap();
    for key in [root.expose(), kek.expose(), dek.expose()] {
        assert_eq!(traces(key), Vec::<PathBuf>::new());
    }
    // What is stored is found.
    assert!(!cluster().files_containing(row.get(1)).is_empty());
}

#[test]
fn logical_decoding_shows_no_value() {
    let scene = Scene::new(cluster());
    let project = scene.project;
    let (mut user, mut superuser) = (scene.db.user(scene.alice), scene.db.superuser());
    let slot = format!("leaks_{}", scene.db.name());
    let create = "SELECT pg_create_logical_replication_slot($1, 'test_decoding')";
    superuser.query(create, &[&slot]).unwrap();
    let text = random_text();
    let long = format!("{text}{}", "-filler-".repeat(7000));

    user.query(PUT, &[&project, &"TOKEN", &text]).unwrap();
    let mut transaction = user.transaction().unwrap();
    transaction.query(PUT, &[&project, &"NEVER", &long]).unwrap();
    transaction.rollback().unwrap();
    // More than decoding keeps in memory: it spills to pg_replslot.
    let mut transaction = user.transaction().unwrap();
    for _ in 0..5 {
        transaction.query(PUT, &[&project, &"TOKEN", &long]).unwrap();
    }
    transaction.commit().unwrap();
    user.query("SELECT meshhook_secrets.secret_purge($1, 'TOKEN', 'TOKEN')", &[&project]).unwrap();

    superuser.batch_execute("SET logical_decoding_work_mem = '64kB'").unwrap();
    let changes = "SELECT data FROM pg_logical_slot_get_changes($1, NULL, NULL)";
    let rows = superuser.query(changes, &[&slot]).unwrap();
    let decoded: String = rows.iter().map(|row| row.get::<_, String>(0)).collect();
    let files = cluster().files_containing(text.as_bytes());
    let drop = "SELECT pg_drop_replication_slot($1)";
    superuser.query(drop, &[&slot]).unwrap();

    for shown in ["meshhook_secrets.secret_versions: INSERT", "secret_versions: DELETE", "TOKEN"] {
        assert!(decoded.contains(shown), "decoding does not show {shown}");
    }
    for trace in spellings(text.as_bytes()) {
        assert!(memmem::find(decoded.as_bytes(), &trace).is_none(), "decoded: a value");
    }
    assert_eq!(files, Vec::<PathBuf>::new());
}

#[test]
fn revealing_much_at_once_makes_no_temporary_file() {
    let scene = Scene::new(cluster());
    let project = scene.project;
    let mut user = scene.db.user(scene.alice);
    let text = random_text();
    let long = format!("{text}{}", "-filler-".repeat(7000));
    for count in 0..10 {
        user.query(PUT, &[&project, &format!("SECRET_{count}"), &long]).unwrap();
    }
    // Each file is logged when it is removed.
    user.batch_execute("SET work_mem = '64kB'").unwrap();
    let temporary_files = || {
        let own = format!("@{} ", scene.db.name());
        let log = cluster().log();
        log.lines().filter(|line| line.contains(&own) && line.contains("temporary file")).count()
    };
    for reveal in [
        "SELECT count(*) FROM meshhook_secrets.secret_get_many($1) WHERE status = 'ok'",
        "SELECT count(v) FROM (SELECT (meshhook_secrets.secret_get_many($1)).value v OFFSET 0) s",
    ] {
        assert_eq!(user.query_one(reveal, &[&project]).unwrap().get::<_, i64>(0), 10);
    }
    assert_eq!(user.query(GET_MANY, &[&project]).unwrap().len(), 10);
    assert_eq!(temporary_files(), 0);
    // A query that itself keeps revealed values in a temporary file is the caller's own doing. It
    // shows here that such a file would have been noticed. (Since 17, PostgreSQL does not count the size of
    // what it sorts when that is one column.)
    let sort = "SELECT name, value FROM meshhook_secrets.secret_get_many($1) ORDER BY value";
    user.query(sort, &[&project]).unwrap();
    assert!(temporary_files() > 0);
}

// --- what the server says -----------------------------------------------------------------

#[test]
fn no_error_and_no_log_line_repeats_a_value() {
    let scene = Scene::new(Cluster::shared());
    let (project, nobodys) = (scene.project, Uuid::new_v4());
    let value = random_text();
    let too_large = value.repeat(65536 / value.len() + 1);
    let mut user = scene.db.user(scene.alice);
    let mut superuser = scene.db.superuser();
    user.query(PUT, &[&project, &"TOKEN", &value]).unwrap();
    user.query(PUT, &[&project, &"DELETED", &value]).unwrap();
    user.query("SELECT meshhook_secrets.secret_delete($1, 'DELETED')", &[&project]).unwrap();
    superuser
        .batch_execute(
            "CREATE FUNCTION public.wrapper(project uuid, value text) RETURNS void LANGUAGE plpgsql
             AS $$ BEGIN PERFORM meshhook_secrets.secret_put(project, 'TOKEN', value, cas => 99); END $$;
             CREATE FUNCTION public.sql_wrapper(project uuid, value text) RETURNS void LANGUAGE sql
             AS $$ SELECT meshhook_secrets.secret_put(project, 'TOKEN', value, cas => 99); $$;
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO authenticated",
        )
        .unwrap();

    let refused = |client: &mut Client, sql: &str, project: Uuid, value: &str, state: &str| {
        expect_error(client.query(sql, &[&project, &value]), state).hides(&value[..64]);
    };
    let own: &[(&str, &str)] = &[
        ("SELECT meshhook_secrets.secret_put($1, 'TOKEN', $2, cas => 99)", "PT409"),
        ("SELECT meshhook_secrets.secret_put($1, 'NEW', $2, cas => 99)", "PT409"),
        ("SELECT meshhook_secrets.secret_put($1, 'DELETED', $2)", "PT410"),
        ("SELECT meshhook_secrets.secret_put($1, 'not a name', $2)", "22023"),
        ("SELECT meshhook_secrets.secret_put($1, NULL, $2)", "22004"),
        ("SELECT meshhook_secrets.secret_put($1, 'T', $2, expires_at => '2001-01-01')", "22023"),
        ("SELECT meshhook_secrets.secret_put_bytes($1, 'TOKEN', $2::text::bytea, 99)", "PT409"),
        ("SELECT (meshhook_secrets.secret_put($1, 'TOKEN', $2)).version / 0", "22012"),
        ("SELECT public.wrapper($1, $2)", "PT409"),
        ("SELECT public.sql_wrapper($1, $2)", "PT409"),
        // A value at a wrong place.
        ("SELECT meshhook_secrets.secret_get($1, $2 || '!')", "22023"),
        ("SELECT meshhook_secrets.secret_get($1, 'A' || $2)", "PT404"),
        ("SELECT meshhook_secrets.secret_get($1, 'TOKEN', purpose => repeat($2, 9))", "22023"),
        ("SELECT meshhook_secrets.secret_get_many($1, ARRAY['TOKEN', $2 || '!'])", "22023"),
        ("SELECT meshhook_secrets.secret_purge($1, 'TOKEN', $2)", "22023"),
        ("SELECT meshhook_secrets.secret_delete($1, 'A' || $2)", "PT404"),
        ("SELECT meshhook_secrets.secret_generate($1, 'NEW', charset => $2)", "22023"),
    ];
    for (sql, state) in own {
        refused(&mut user, sql, project, &value, state);
    }
    let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', $2)";
    refused(&mut user, put, project, &too_large, "PT413");
    refused(&mut user, put, nobodys, &value, "42501");
    refused(&mut scene.db.user(nobodys), put, project, &value, "42501");
    refused(&mut scene.db.anon(), put, project, &value, "42501");
    refused(&mut scene.db.service(), put, nobodys, &value, "23503");
    user.batch_execute("BEGIN READ ONLY").unwrap();
    refused(&mut user, put, project, &value, "25006");
    user.batch_execute("ROLLBACK").unwrap();
    // Stored, but it cannot be opened.
    let spoil = "UPDATE meshhook_secrets.secret_versions SET value = value || '\\x00'";
    superuser.batch_execute(spoil).unwrap();
    expect_error(user.query(GET, &[&project, &"TOKEN"]), "XX001").hides(&value);

    // The server logs each of them, with its statement.
    let mine = format!("@{} ", scene.db.name());
    let log = scene.db.cluster().log();
    for state in ["PT409", "PT410", "PT413", "PT404", "22023", "22004", "42501", "XX001"] {
        let logged = |line: &str| line.contains(&mine) && line.contains(&format!("{state} "));
        assert!(log.lines().any(logged), "{state} is not in the log");
    }
    assert!(log.contains("STATEMENT:  SELECT meshhook_secrets.secret_put($1, '***', $2, cas"));
    for spelling in spellings(value.as_bytes()) {
        assert!(memmem::find(log.as_bytes(), &spelling).is_none(), "a value is in the log");
    }
}

#[test]
fn views_of_the_server_show_no_value() {
    let scene = Scene::new(Cluster::shared());
    let value = random_text();
    let mut user = scene.db.user(scene.alice);
    user.query(PUT, &[&scene.project, &"TOKEN", &value]).unwrap();
    user.batch_execute("BEGIN").unwrap();
    user.query(PUT, &[&scene.project, &"OTHER", &value]).unwrap();
    let activity = "SELECT string_agg(a::text, ' ') FROM pg_stat_activity a
        WHERE datname = current_database()";
    let shown: String = scene.db.superuser().query_one(activity, &[]).unwrap().get(0);
    assert!(shown.contains("secret_put($1, $2, $3)"), "{shown}");
    assert!(!shown.contains(&value));
}

// --- plans ----------------------------------------------------------------------------------

#[test]
fn a_plan_shows_no_revealed_value() {
    let scene = Scene::new(Cluster::shared());
    let value = random_text();
    let mut user = scene.db.user(scene.alice);
    user.query(PUT, &[&scene.project, &"TOKEN", &value]).unwrap();
    for options in ["VERBOSE", "ANALYZE, VERBOSE", "ANALYZE, VERBOSE, BUFFERS, FORMAT JSON"] {
        for mode in ["auto", "force_custom_plan", "force_generic_plan"] {
            user.batch_execute(&format!("SET plan_cache_mode = {mode}")).unwrap();
            for query in [
                "SELECT meshhook_secrets.secret_get($1::uuid, $2::text)",
                "SELECT meshhook_secrets.secret_get_bytes($1::uuid, $2::text)",
                "SELECT * FROM meshhook_secrets.secret_get($1::uuid, $2::text)",
                "SELECT * FROM meshhook_secrets.secret_get_many($1::uuid, ARRAY[$2::text])",
                "SELECT 1 WHERE meshhook_secrets.secret_get($1::uuid, $2::text) <> ''",
            ] {
                let prepare = format!("PREPARE q (uuid, text) AS {query}");
                user.batch_execute(&prepare).unwrap();
                let execute =
                    format!("EXPLAIN ({options}) EXECUTE q ('{}', 'TOKEN')", scene.project);
                let rows = user.simple_query(&execute).unwrap();
                let plan = format!("{rows:?}");
                assert!(plan.contains("secret_get"), "{plan}");
                for spelling in spellings(value.as_bytes()) {
                    assert!(memmem::find(plan.as_bytes(), &spelling).is_none(), "{execute}");
                }
                user.batch_execute("DEALLOCATE q").unwrap();
            }
        }
    }
    let explain = "EXPLAIN (ANALYZE, VERBOSE) SELECT meshhook_secrets.secret_get($1, $2)";
    let rows = user.query(explain, &[&scene.project, &"TOKEN"]).unwrap();
    let plan: String = rows.iter().map(|row| row.get::<_, String>(0)).collect();
    assert!(plan.contains("actual time") && !plan.contains(&value), "{plan}");
}

#[test]
fn a_kept_plan_reveals_anew_each_time() {
    let scene = Scene::new(Cluster::shared());
    let project = scene.project;
    let mut user = scene.db.user(scene.alice);
    user.query(PUT, &[&project, &"TOKEN", &"before"]).unwrap();
    // Constants only: what is not volatile would be computed while planning.
    let constants = format!("SELECT meshhook_secrets.secret_get('{project}', 'TOKEN')");
    for mode in ["auto", "force_generic_plan"] {
        user.batch_execute(&format!("SET plan_cache_mode = {mode}")).unwrap();
        let kept = user.prepare(&constants).unwrap();
        user.query(PUT, &[&project, &"TOKEN", &"before"]).unwrap();
        for _ in 0..7 {
            assert_eq!(user.query_one(&kept, &[]).unwrap().get::<_, &str>(0), "before");
        }
        user.query(PUT, &[&project, &"TOKEN", &"after"]).unwrap();
        assert_eq!(user.query_one(&kept, &[]).unwrap().get::<_, &str>(0), "after");
    }
    // And a write in a query of several rows happens once for each of them.
    let puts = format!(
        "SELECT (meshhook_secrets.secret_put('{project}', 'MANY', 'same')).version
         FROM generate_series(1, 3)"
    );
    let rows = user.query(&puts, &[]).unwrap();
    let versions: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(versions, [1, 2, 3]);
}

#[test]
fn no_two_writes_of_a_value_give_the_same_bytes() {
    let scene = Scene::new(Cluster::shared());
    let project = scene.project;
    let (mut user, mut superuser) = (scene.db.user(scene.alice), scene.db.superuser());
    for name in ["A", "B"] {
        user.query(PUT, &[&project, &name, &"the same value"]).unwrap();
        user.query(PUT, &[&project, &name, &"the same value"]).unwrap();
        let rollback = "SELECT meshhook_secrets.secret_rollback($1, $2, 1)";
        user.query(rollback, &[&project, &name]).unwrap();
    }
    let nonces = "SELECT substr(value, 3, 24) FROM meshhook_secrets.secret_versions
        UNION ALL SELECT substr(dek_encrypted, 3, 24) FROM meshhook_secrets.data_keys
        UNION ALL SELECT substr(kek_encrypted, 3, 24) FROM meshhook_secrets.kek_storage";
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut collect = |superuser: &mut Client| {
        all.extend(superuser.query(nonces, &[]).unwrap().iter().map(|row| row.get(0)));
    };
    collect(&mut superuser);
    // In place too: a new expiry, and a project that is sealed and unsealed.
    for version in ["'infinity'", "NULL"] {
        for name in ["A", "B"] {
            let expire = format!("SELECT meshhook_secrets.secret_expire($1, $2, {version})");
            user.query(&expire, &[&project, &name]).unwrap();
        }
        let current = "SELECT substr(value, 3, 24) FROM meshhook_secrets.secret_versions
            WHERE version = 3";
        all.extend(superuser.query(current, &[]).unwrap().iter().map(|row| row.get(0)));
    }
    for function in ["seal", "unseal"] {
        let call = format!("SELECT meshhook_secrets.{function}($1)");
        superuser.query(&call, &[&project]).unwrap();
        let key = "SELECT substr(dek_encrypted, 3, 24) FROM meshhook_secrets.data_keys";
        all.extend(superuser.query(key, &[]).unwrap().iter().map(|row| row.get(0)));
    }
    let count = all.len();
    assert_eq!(count, 8 + 4 + 2);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "a nonce is used twice");
}

#[test]
fn no_index_or_generated_column_can_be_made_of_revealed_values() {
    let scene = Scene::new(Cluster::shared());
    let mut superuser = scene.db.superuser();
    superuser.batch_execute("CREATE TABLE names (project uuid, name text)").unwrap();
    let values = [
        "meshhook_secrets.secret_get(project, name)",
        "encode(meshhook_secrets.secret_get_bytes(project, name), 'hex')",
        "(meshhook_secrets.secret_put(project, name, 'value')).name",
        "(meshhook_secrets.secret_put_bytes(project, name, 'value')).name",
        "(meshhook_secrets.secret_generate(project, name)).name",
        "(meshhook_secrets.secret_describe(project, name)).name",
    ];
    let uses = |value: &str| {
        [
            format!("CREATE INDEX ON names (({value}))"),
            format!("CREATE INDEX ON names (name) WHERE {value} IS NOT NULL"),
            format!("ALTER TABLE names ADD stored text GENERATED ALWAYS AS ({value}) STORED"),
            format!("CREATE TABLE parts (project uuid, name text) PARTITION BY LIST (({value}))"),
        ]
    };
    for value in values {
        for sql in uses(value) {
            let error = expect_error(superuser.batch_execute(&sql), "42P17");
            assert!(error.message.to_lowercase().contains("immutable"), "{sql}: {error:?}");
        }
    }
    // With a function that is immutable they all work.
    for sql in uses("lower(name)") {
        superuser.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

// --- the scene ---------------------------------------------------------------------------------

const PUT: &str = "SELECT meshhook_secrets.secret_put($1, $2, $3)";
const PUT_BYTES: &str = "SELECT meshhook_secrets.secret_put_bytes($1, $2, $3)";
const GET: &str = "SELECT meshhook_secrets.secret_get($1, $2)";
const GET_MANY: &str = "SELECT * FROM meshhook_secrets.secret_get_many($1)";

/// A server that writes as much as one can: WAL for logical decoding, every temporary file logged.
fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
        Cluster::builder()
            .setting("wal_level", "logical")
            .setting("wal_keep_size", "1GB")
            .setting("max_prepared_transactions", "4")
            .setting("log_temp_files", "0")
            .start()
    });
    &CLUSTER
}

/// A database, and a project of Alice's in it.
struct Scene {
    db: Database<'static>,
    alice: Uuid,
    project: Uuid,
}

impl Scene {
    fn new(cluster: &'static Cluster) -> Self {
        let (db, alice) = (cluster.database(), Uuid::new_v4());
        let project = db.project(alice);
        Self { db, alice, project }
    }
}

/// 64 characters that were never seen before.
fn random_text() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// The files of the server that hold these bytes, as they are or in hexadecimal.
fn traces(needle: &[u8]) -> Vec<PathBuf> {
    let [plain, hex, ..] = spellings(needle);
    [plain, hex].iter().flat_map(|spelling| cluster().files_containing(spelling)).collect()
}

/// Bytes as they are, in hexadecimal, and in base64.
fn spellings(bytes: &[u8]) -> [Vec<u8>; 4] {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [
        bytes.to_vec(),
        hex.clone().into_bytes(),
        hex.to_uppercase().into_bytes(),
        base64(bytes).into_bytes(),
    ]
}

/// Base64 of all whole groups of three bytes.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks_exact(3)
        .map(|group| group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)))
        .flat_map(|bits| [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63])))
        .collect()
}
