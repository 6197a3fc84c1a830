//! Who may do what: listing, writing and revealing are three rights, a project belongs to its
//! members, nothing is allowed by default, and nobody gets past the functions. Everything is tried
//! as the role that would try it; a superuser only prepares and looks at what is stored.

use postgres::{Client, Row};
use serde_json::{Value, json};
use support::{Cluster, Database, Failure, expect_error};
use uuid::Uuid;

/// A call of every `secret_*` function, with a project as `$1`.
const CALLS: &[&str] = &[
    "secret_put($1, 'TOKEN', 'new')",
    "secret_put_bytes($1, 'TOKEN', '\\x00')",
    "secret_generate($1, 'TOKEN')",
    "secret_rollback($1, 'TOKEN', 1)",
    "secret_get($1, 'TOKEN')",
    "secret_get_bytes($1, 'TOKEN')",
    "secret_get_many($1)",
    "secret_get_many($1, ARRAY['TOKEN'])",
    "secret_list($1)",
    "secret_list($1, include_deleted => true, search => 'TOK')",
    "secret_describe($1, 'TOKEN')",
    "project_seal_status($1)",
    "secret_versions($1, 'TOKEN')",
    "secret_due($1)",
    "secret_delete($1, 'TOKEN')",
    "secret_undelete($1, 'TOKEN')",
    "secret_purge($1, 'TOKEN', 'TOKEN')",
    "secret_expire($1, 'TOKEN', NULL)",
];

/// Those that reveal.
const REVEALS: &[&str] = &[
    "secret_get($1, 'TOKEN')",
    "secret_get($1, 'TOKEN', 1, 'run')",
    "secret_get($1, 'NONE')",
    "secret_get_bytes($1, 'TOKEN')",
    "secret_get_many($1)",
    "secret_get_many($1, ARRAY['TOKEN', 'NONE'])",
    "secret_get_many($1, ARRAY[]::text[])",
];

const TABLES: &[&str] = &[
    "kek_storage",
    "data_keys",
    "project_secrets",
    "rotation_jobs",
    "secret_versions",
    "settings",
];

const AUDIT_TABLES: &[&str] =
    &["audit_log", "audit_pending", "audit_seals", "audit_head", "audit_keys"];

// --- the three rights ----------------------------------------------------------------------

#[test]
fn members_list_and_write_but_reveal_only_once_it_is_granted() {
    let World { db, alice, project } = world();
    let grants = |reveal: bool| {
        let setup = "SELECT meshhook_secrets.setup_supabase(users_may_reveal => $1)";
        db.superuser().execute(setup, &[&reveal]).unwrap();
        privileges(&db)
    };
    let mut user = db.user(alice);

    let without = grants(false);
    for reveal in REVEALS {
        expect_error(call(&mut user, reveal, project), "42501")
            .message("permission denied for function");
    }
    assert_eq!(names(&mut user, project), ["TOKEN"]);
    put(&mut user, project, "OTHER", "x").unwrap();
    assert_eq!(names(&mut user, project), ["OTHER", "TOKEN"]);
    // The server side reveals all the same.
    assert_eq!(get(&mut db.service(), project, "TOKEN").unwrap(), "hush");

    let with = grants(true);
    assert_ne!(with, without);
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
    assert_eq!(grants(true), with, "a second call changes nothing");
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");

    assert_eq!(grants(false), without, "and what was given is taken away again");
    assert_eq!(grants(false), without);
    for reveal in REVEALS {
        expect_error(call(&mut user, reveal, project), "42501")
            .message("permission denied for function");
    }
    assert_eq!(names(&mut user, project), ["OTHER", "TOKEN"]);
}

#[test]
fn a_reader_reveals_and_does_nothing_else() {
    let World { db, alice, project } = world();
    let mut reader = login(&db, "reader", "IN ROLE meshhook_secrets_reader", alice);
    assert_eq!(get(&mut reader, project, "TOKEN").unwrap(), "hush");
    assert_eq!(call(&mut reader, "secret_get_many($1)", project).unwrap().len(), 1);
    let bytes: Vec<u8> =
        call(&mut reader, "secret_get_bytes($1, 'TOKEN')", project).unwrap()[0].get(0);
    assert_eq!(bytes, b"hush");

    assert_eq!(call(&mut reader, "project_seal_status($1)", project).unwrap().len(), 1);

    let before = stored(&db);
    let allowed = |call: &&&str| call.starts_with("secret_get") || call.starts_with("project_");
    for other in CALLS.iter().filter(|call| !allowed(call)) {
        expect_error(call(&mut reader, other, project), "42501").message("permission denied");
    }
    for column in ["description", "metadata", "created_by", "created_at", "updated_at"] {
        let select = format!("SELECT {column} FROM meshhook_secrets.project_secrets");
        expect_error(reader.query(&select, &[]), "42501");
    }
    assert_eq!(stored(&db), before);
}

#[test]
fn a_writer_writes_and_lists_and_reveals_nothing() {
    let World { db, alice, project } = world();
    let mut writer = login(&db, "writer", "IN ROLE meshhook_secrets_writer", alice);
    assert_eq!(names(&mut writer, project), ["TOKEN"]);
    put(&mut writer, project, "TOKEN", "new").unwrap();
    for reveal in REVEALS {
        expect_error(call(&mut writer, reveal, project), "42501")
            .message("permission denied for function");
    }
}

#[test]
fn a_key_administrator_sees_no_secret() {
    let World { db, alice, project } = world();
    let mut admin = login(&db, "keys", "IN ROLE meshhook_secrets_kek_admin", alice);
    let status = "SELECT sealed FROM meshhook_secrets.seal_status()";
    assert!(!admin.query_one(status, &[]).unwrap().get::<_, bool>(0));
    assert_eq!(
        admin.query("SELECT * FROM meshhook_secrets.root_key_status()", &[]).unwrap().len(),
        1
    );
    for any in CALLS {
        expect_error(call(&mut admin, any, project), "42501");
    }
    for table in TABLES.iter().chain(AUDIT_TABLES) {
        let count = format!("SELECT count(*) FROM meshhook_secrets.{table}");
        expect_error(admin.query(&count, &[]), "42501").message("permission denied for table");
    }
}

#[test]
fn key_functions_are_refused_to_everybody_else() {
    let World { db, alice, project } = world();
    let before = stored(&db);
    let mut clients = vec![
        db.user(alice),
        db.service(),
        db.anon(),
        login(&db, "nobody", "", alice),
        login(
            &db,
            "both",
            "BYPASSRLS IN ROLE meshhook_secrets_writer, meshhook_secrets_reader",
            alice,
        ),
    ];
    for client in &mut clients {
        for function in ["seal()", "unseal()", "seal_status()", "root_key_status()"] {
            let sql = format!("SELECT * FROM meshhook_secrets.{function}");
            expect_error(client.query(&sql, &[]), "42501").message("permission denied");
        }
        for function in ["seal($1)", "unseal($1)"] {
            expect_error(call(client, function, project), "42501").message("permission denied");
        }
        for setup in ["setup_supabase(true)", "attach_projects('public.projects')"] {
            let sql = format!("SELECT meshhook_secrets.{setup}");
            expect_error(client.query(&sql, &[]), "42501").message("permission denied");
        }
    }
    assert_eq!(stored(&db), before);
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
}

#[test]
fn visitors_get_nothing() {
    let World { db, project, .. } = world();
    for reveal in [false, true] {
        let setup = "SELECT meshhook_secrets.setup_supabase(users_may_reveal => $1)";
        db.superuser().execute(setup, &[&reveal]).unwrap();
        let mut anon = db.anon();
        for any in CALLS {
            expect_error(call(&mut anon, any, project), "42501")
                .message("permission denied for schema");
        }
        for table in TABLES.iter().chain(AUDIT_TABLES) {
            let count = format!("SELECT count(*) FROM meshhook_secrets.{table}");
            expect_error(anon.query(&count, &[]), "42501").message("permission denied for schema");
        }
        // Not even where the schema would let them in.
        let held: Vec<String> = db
            .superuser()
            .query(
                "SELECT proname::text FROM pg_proc p WHERE pronamespace = 'meshhook_secrets'::regnamespace
                    AND has_function_privilege('anon', p.oid, 'EXECUTE')
                 UNION ALL
                 SELECT relname FROM pg_class c WHERE relnamespace = 'meshhook_secrets'::regnamespace
                    AND relkind IN ('r', 'p', 'v', 'm', 'f') AND
                    (has_table_privilege('anon', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                     OR has_any_column_privilege('anon', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))
                 UNION ALL
                 SELECT t.typname FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
                    WHERE t.typnamespace = 'meshhook_secrets'::regnamespace AND t.typcategory <> 'A'
                    AND coalesce(c.relkind = 'c', true) AND has_type_privilege('anon', t.oid, 'USAGE')
                 UNION ALL
                 SELECT nspname FROM pg_namespace n WHERE nspname = 'meshhook_secrets'
                    AND has_schema_privilege('anon', n.oid, 'USAGE, CREATE')",
                &[],
            )
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert!(held.is_empty(), "anon holds {held:?}");
    }
}

// --- whose project -------------------------------------------------------------------------

#[test]
fn a_foreign_project_looks_exactly_like_none() {
    let World { db, alice, project } = world();
    let (bob, empty) = (Uuid::new_v4(), db.project(alice));
    let bobs = db.project(bob);
    put(&mut db.user(bob), bobs, "TOKEN", "mine").unwrap();
    let (deleted, sealed, expired) = (db.project(alice), db.project(alice), db.project(alice));
    for foreign in [deleted, sealed, expired] {
        put(&mut db.user(alice), foreign, "TOKEN", "hush").unwrap();
    }
    call(&mut db.user(alice), "secret_delete($1, 'TOKEN')", deleted).unwrap();
    call(&mut db.user(alice), "secret_expire($1, 'TOKEN', now())", expired).unwrap();
    call(&mut db.superuser(), "seal($1)", sealed).unwrap();

    let before = stored(&db);
    let mut user = db.user(bob);
    for any in CALLS {
        let none = expect_error(call(&mut user, any, Uuid::new_v4()), "42501");
        assert!(!none.detail.is_empty() && !none.hint.is_empty(), "{any}: {none:?}");
        for foreign in [project, empty, deleted, sealed, expired] {
            let there = expect_error(call(&mut user, any, foreign), "42501");
            assert_eq!(texts(&there), texts(&none), "{any}");
        }
    }
    // Not by an argument either that would be wrong for a project of one's own.
    for odd in [
        "secret_put($1, 'TOKEN', 'v', cas => 1)",
        "secret_put($1, 'TOKEN', 'v', cas => 0)",
        "secret_get($1, 'TOKEN', 99)",
        "secret_get($1, 'TOKEN', -1)",
        "secret_rollback($1, 'TOKEN', 99)",
        "secret_expire($1, 'TOKEN', now())",
    ] {
        let none = expect_error(call(&mut user, odd, Uuid::new_v4()), "42501");
        for foreign in [project, empty, deleted, sealed, expired] {
            let there = expect_error(call(&mut user, odd, foreign), "42501");
            assert_eq!(texts(&there), texts(&none), "{odd}");
        }
    }
    assert_eq!(stored(&db), before);
    assert_eq!(get(&mut user, bobs, "TOKEN").unwrap(), "mine");
}

#[test]
fn every_secret_function_is_among_the_calls_tried_here() {
    let World { db, .. } = world();
    let functions =
        "SELECT proname FROM pg_proc WHERE pronamespace = 'meshhook_secrets'::regnamespace
        AND starts_with(proname, 'secret_') AND proname <> 'secret_reencrypt'";
    for row in db.superuser().query(functions, &[]).unwrap() {
        let name = format!("{}(", row.get::<_, String>(0));
        assert!(CALLS.iter().any(|call| call.starts_with(&name)), "add {name}...) to CALLS");
    }
}

#[test]
fn what_is_due_is_shown_of_ones_own_projects_only() {
    let World { db, alice, project } = world();
    let bob = Uuid::new_v4();
    let bobs = db.project(bob);
    call(&mut db.user(alice), "secret_expire($1, 'TOKEN', now() + '1 day')", project).unwrap();
    for (user, project) in [(alice, project), (bob, bobs)] {
        put(&mut db.user(user), project, "SOON", "x").unwrap();
        call(&mut db.user(user), "secret_expire($1, 'SOON', now() + '1 hour')", project).unwrap();
    }
    let due = |mut client: Client| -> Vec<(Uuid, String)> {
        let sql = "SELECT project_id, name FROM meshhook_secrets.secret_due()";
        client.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    assert_eq!(due(db.user(alice)), [(project, "SOON".into()), (project, "TOKEN".into())]);
    assert_eq!(due(db.user(bob)), [(bobs, "SOON".into())]);
    assert!(due(db.user(Uuid::new_v4())).is_empty());
    assert_eq!(due(db.service()).len(), 3);
}

#[test]
fn claims_are_believed_and_without_claims_there_is_nothing() {
    let World { db, alice, project } = world();
    let bob = Uuid::new_v4();
    let bobs = db.project(bob);
    put(&mut db.user(bob), bobs, "TOKEN", "bob's").unwrap();
    let mut user = db.user(alice);
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");

    // Whoever can run SQL can claim to be anybody: as documented. But only that one.
    claim(&mut user, &json!({"sub": bob}));
    assert_eq!(get(&mut user, bobs, "TOKEN").unwrap(), "bob's");
    let stranger = expect_error(get(&mut user, project, "TOKEN"), "42501");
    assert_eq!(visible(&mut user), [bobs]);

    for none in [json!({}), json!({"sub": null}), json!({"role": "authenticated"})] {
        claim(&mut user, &none);
        for project in [project, bobs] {
            let failure = expect_error(get(&mut user, project, "TOKEN"), "42501");
            assert_eq!(texts(&failure), texts(&stranger), "{none}");
            expect_error(call(&mut user, "secret_list($1)", project), "42501");
        }
        assert!(visible(&mut user).is_empty(), "{none}");
    }
    for unset in ["RESET request.jwt.claims", "SET request.jwt.claims = ''"] {
        user.batch_execute(unset).unwrap();
        expect_error(get(&mut user, project, "TOKEN"), "42501");
        assert!(visible(&mut user).is_empty());
    }
    // The role that is claimed counts for nothing.
    claim(&mut user, &json!({"role": "service_role"}));
    expect_error(get(&mut user, project, "TOKEN"), "42501");
    // Nor do claims that are no claims: the host's own function refuses them.
    for broken in ["nonsense", "{\"sub\": \"x\"}"] {
        user.execute("SELECT set_config('request.jwt.claims', $1, false)", &[&broken]).unwrap();
        for any in CALLS {
            assert!(call(&mut user, any, project).is_err(), "{any} with claims {broken}");
        }
    }
}

#[test]
fn added_members_get_in_and_removed_ones_are_out_at_once() {
    let World { db, project, .. } = world();
    let bob = Uuid::new_v4();
    let mut user = db.user(bob);
    expect_error(get(&mut user, project, "TOKEN"), "42501");
    db.add_member(project, bob);
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
    assert_eq!(put(&mut user, project, "TOKEN", "two").unwrap(), 2);
    db.superuser().execute("DELETE FROM public.project_members", &[]).unwrap();
    expect_error(get(&mut user, project, "TOKEN"), "42501");
    expect_error(put(&mut user, project, "TOKEN", "three"), "42501");
}

#[test]
fn one_session_that_changes_roles_and_claims_is_judged_anew_each_time() {
    let World { db, alice, project } = world();
    let (bob, eve) = (Uuid::new_v4(), Uuid::new_v4());
    let bobs = db.project(bob);
    put(&mut db.user(bob), bobs, "TOKEN", "bob's").unwrap();

    let mut client = db.connect("authenticator");
    become_role(&mut client, "service_role", &json!({}));
    let kept = client.prepare("SELECT meshhook_secrets.secret_get($1, 'TOKEN')").unwrap();
    let list = client.prepare("SELECT count(*) FROM meshhook_secrets.secret_list($1)").unwrap();
    let rows = client.prepare("SELECT count(*) FROM meshhook_secrets.project_secrets").unwrap();
    // More often than it takes PostgreSQL to settle on a generic plan.
    for round in 0..8 {
        let mut expect = |role: &str, sub: Uuid, sees: [bool; 2]| {
            become_role(&mut client, role, &json!({"sub": sub}));
            for (project, value, sees) in [(project, "hush", sees[0]), (bobs, "bob's", sees[1])] {
                let got = client.query_one(&kept, &[&project]);
                let listed = client.query_one(&list, &[&project]);
                if sees {
                    assert_eq!(got.unwrap().get::<_, String>(0), value, "{role} in round {round}");
                    assert_eq!(listed.unwrap().get::<_, i64>(0), 1);
                } else {
                    expect_error(got, "42501");
                    expect_error(listed, "42501");
                }
            }
            let seen = sees.iter().filter(|sees| **sees).count() as i64;
            match role {
                "anon" => drop(expect_error(client.query_one(&rows, &[]), "42501")),
                _ => assert_eq!(client.query_one(&rows, &[]).unwrap().get::<_, i64>(0), seen),
            }
        };
        expect("authenticated", alice, [true, false]);
        expect("authenticated", bob, [false, true]);
        expect("authenticated", eve, [false, false]);
        expect("service_role", eve, [true, true]);
        expect("anon", alice, [false, false]);
    }
}

#[test]
fn switching_row_security_off_opens_nothing() {
    let World { db, project, .. } = world();
    let mut eve = db.user(Uuid::new_v4());
    eve.batch_execute("SET row_security = off").unwrap();
    for any in CALLS {
        assert_eq!(
            texts(&expect_error(call(&mut eve, any, project), "42501")),
            texts(&expect_error(call(&mut eve, any, Uuid::new_v4()), "42501")),
        );
    }
    expect_error(eve.query("SELECT id FROM meshhook_secrets.project_secrets", &[]), "42501");
}

#[test]
fn the_server_side_is_held_to_the_project_it_names() {
    let World { db, alice, project } = world();
    let other = db.project(alice);
    let mut service = db.service();
    put(&mut service, other, "TOKEN", "other's").unwrap();
    put(&mut service, other, "MORE", "x").unwrap();
    assert_eq!(get(&mut service, project, "TOKEN").unwrap(), "hush");
    assert_eq!(get(&mut service, other, "TOKEN").unwrap(), "other's");
    assert_eq!(names(&mut service, project), ["TOKEN"]);
    expect_error(get(&mut service, project, "MORE"), "PT404");
    call(&mut service, "secret_purge($1, 'TOKEN', 'TOKEN')", project).unwrap();
    assert_eq!(get(&mut service, other, "TOKEN").unwrap(), "other's");
}

#[test]
fn the_server_side_cannot_use_a_project_that_does_not_exist() {
    let World { db, project, .. } = world();
    let before = stored(&db);
    let mut service = db.service();
    let stranger = expect_error(get(&mut db.user(Uuid::new_v4()), project, "TOKEN"), "42501");
    for any in CALLS {
        let result = call(&mut service, any, Uuid::new_v4());
        // Those that would make the secret.
        if any.starts_with("secret_put") || any.starts_with("secret_generate") {
            let failure = expect_error(result, "23503").message("project does not exist");
            assert!(!failure.detail.is_empty() && !failure.hint.is_empty(), "{any}");
        } else {
            assert_eq!(texts(&expect_error(result, "42501")), texts(&stranger), "{any}");
        }
    }
    assert_eq!(stored(&db), before);
}

#[test]
fn without_a_binding_only_those_above_row_level_security_get_in() {
    let db = Cluster::shared().empty_database();
    db.superuser()
        .batch_execute(
            "CREATE EXTENSION meshhook_secrets; SELECT meshhook_secrets.setup_supabase(true)",
        )
        .unwrap();
    let project = Uuid::new_v4();
    let mut service = db.service();
    put(&mut service, project, "TOKEN", "hush").unwrap();
    assert_eq!(get(&mut service, project, "TOKEN").unwrap(), "hush");
    assert_eq!(names(&mut service, project), ["TOKEN"]);

    let before = stored(&db);
    let mut user = db.user(Uuid::new_v4());
    for any in CALLS {
        let failure = expect_error(call(&mut user, any, project), "42501");
        assert_eq!(
            texts(&failure),
            texts(&expect_error(call(&mut user, any, Uuid::new_v4()), "42501"))
        );
    }
    assert!(visible(&mut user).is_empty());
    assert_eq!(stored(&db), before);
}

#[test]
fn the_author_is_the_claimed_user_or_else_the_role() {
    let World { db, alice, project } = world();
    let author = |client: &mut Client, name: &str| -> [String; 2] {
        put(client, project, name, "x").unwrap();
        let row = db.superuser().query_one(
            "SELECT s.created_by, v.created_by FROM meshhook_secrets.project_secrets s
             JOIN meshhook_secrets.secret_versions v ON v.secret_id = s.id AND v.version = s.current_version
             WHERE s.name = $1", &[&name]).unwrap();
        [row.get(0), row.get(1)]
    };
    let (by_alice, by_service) = (alice.to_string(), "service_role".to_owned());
    let both = |who: &String| [who.clone(), who.clone()];
    assert_eq!(author(&mut db.user(alice), "A"), both(&by_alice));
    assert_eq!(author(&mut db.service(), "B"), both(&by_service));
    // Each version has its own; the secret keeps who made it.
    assert_eq!(author(&mut db.service(), "A"), [by_alice.clone(), by_service.clone()]);
    let sql = "SELECT created_by FROM meshhook_secrets.secret_versions($1, 'A')";
    let versions = db.user(alice).query(sql, &[&project]).unwrap();
    let versions: Vec<String> = versions.iter().map(|row| row.get(0)).collect();
    assert_eq!(versions, [by_service.clone(), by_alice]);
    // A claim that is no text is no user.
    let mut service = db.service();
    claim(&mut service, &json!({"sub": {"a": 1}}));
    assert_eq!(author(&mut service, "C"), both(&by_service));
}

// --- past the functions ----------------------------------------------------------------------

#[test]
fn direct_changes_are_refused_on_every_table() {
    let World { db, alice, project } = world();
    let role = format!("{}_mighty", db.name());
    db.superuser()
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN BYPASSRLS IN ROLE meshhook_secrets_writer, meshhook_secrets_reader;
             GRANT ALL ON ALL TABLES IN SCHEMA meshhook_secrets TO {role}"
        ))
        .unwrap();
    let before = stored(&db);
    let refused_to = |client: &mut Client, by_trigger: bool| {
        for table in TABLES {
            for forgery in forgeries(table) {
                let failure = expect_error(client.batch_execute(&forgery), "42501");
                if by_trigger {
                    failure
                        .message("tables of meshhook_secrets cannot be changed directly")
                        .detail("would not authenticate")
                        .hint("functions");
                }
            }
        }
        assert_eq!(stored(&db), before);
    };
    let refuses_copies_of = |user: &str, role: &str, states: &[&str]| {
        for table in TABLES {
            let state = copy_in(&db, user, role, table);
            assert!(states.contains(&state.as_str()), "COPY {table} as {role}: {state}");
        }
        assert_eq!(stored(&db), before);
    };
    refused_to(&mut db.user(alice), false);
    refused_to(&mut db.service(), false);
    // 0A000: PostgreSQL itself has no COPY FROM for whom row-level security applies to.
    refuses_copies_of("authenticator", "authenticated", &["42501", "0A000"]);
    refuses_copies_of("authenticator", "service_role", &["42501"]);

    // Those with every right on the tables that PostgreSQL knows.
    refused_to(&mut db.connect(&role), true);
    let grant = "GRANT ALL ON ALL TABLES IN SCHEMA meshhook_secrets TO authenticated, service_role";
    db.superuser().batch_execute(grant).unwrap();
    refused_to(&mut db.user(alice), true);
    refused_to(&mut db.service(), true);
    refuses_copies_of(&role, &role, &["42501"]);
    refuses_copies_of("authenticator", "authenticated", &["0A000"]);
    refuses_copies_of("authenticator", "service_role", &["42501"]);
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");

    // setup_supabase takes such grants back.
    db.superuser().execute("SELECT meshhook_secrets.setup_supabase(true)", &[]).unwrap();
    for mut client in [db.user(alice), db.service()] {
        expect_error(
            client.query("SELECT value FROM meshhook_secrets.secret_versions", &[]),
            "42501",
        );
    }
}

#[test]
fn direct_changes_stay_refused_after_a_function_failed_halfway() {
    let World { db, alice, project } = world();
    let mut first = db.user(alice);
    first.batch_execute("BEGIN").unwrap();
    put(&mut first, project, "NEW", "x").unwrap();
    put(&mut first, project, "TOKEN", "new").unwrap();

    // Our INSERT, and our DELETE with the owner's rights, run into the other's lock and fail.
    let mut second = db.user(alice);
    second.batch_execute("SET lock_timeout = '50ms'; BEGIN; SAVEPOINT s").unwrap();
    type Failing = fn(&mut Client, Uuid) -> Result<(), postgres::Error>;
    let fails: [Failing; 2] = [
        |client, project| put(client, project, "NEW", "y").map(drop),
        |client, project| {
            client.execute("DELETE FROM public.projects WHERE id = $1", &[&project]).map(drop)
        },
    ];
    for fail in fails {
        expect_error(fail(&mut second, project), "55P03");
        second.batch_execute("ROLLBACK TO s").unwrap();
        let me = second.query_one("SELECT current_user::text", &[]).unwrap();
        assert_eq!(me.get::<_, String>(0), "authenticated");
        for forbidden in [
            "DELETE FROM meshhook_secrets.project_secrets",
            "UPDATE meshhook_secrets.project_secrets SET current_version = 1",
            "SELECT value FROM meshhook_secrets.secret_versions",
        ] {
            expect_error(second.batch_execute(forbidden), "42501");
            second.batch_execute("ROLLBACK TO s").unwrap();
        }
    }
    second.batch_execute("ROLLBACK").unwrap();
    first.batch_execute("COMMIT").unwrap();
    assert_eq!(get(&mut second, project, "NEW").unwrap(), "x");
}

#[test]
fn ciphertext_keys_and_settings_cannot_be_read() {
    let World { db, alice, .. } = world();
    db.superuser().batch_execute("ANALYZE").unwrap();
    for mut client in [db.user(alice), db.service()] {
        for table in ["secret_versions", "data_keys", "kek_storage", "settings"] {
            let columns = db.superuser().query(
                "SELECT attname::text FROM pg_attribute WHERE attnum > 0 AND attrelid = ('meshhook_secrets.' || $1)::regclass",
                &[&table],
            );
            let columns = columns.unwrap();
            assert!(!columns.is_empty());
            for column in columns.iter().map(|row| row.get::<_, String>(0)) {
                let select = format!("SELECT {column} FROM meshhook_secrets.{table}");
                expect_error(client.query(&select, &[]), "42501");
            }
            for peek in [
                format!("SELECT count(*) FROM meshhook_secrets.{table}"),
                format!("SELECT FROM meshhook_secrets.{table} FOR KEY SHARE"),
                format!("SELECT ctid FROM meshhook_secrets.{table}"),
                format!("TABLE meshhook_secrets.{table}"),
            ] {
                expect_error(client.query(&peek, &[]), "42501")
                    .message("permission denied for table");
            }
            let copy = format!("COPY meshhook_secrets.{table} TO STDOUT");
            expect_error(client.batch_execute(&copy), "42501");
            let lock = format!("LOCK TABLE meshhook_secrets.{table} IN ACCESS EXCLUSIVE MODE");
            expect_error(client.batch_execute(&format!("BEGIN; {lock}")), "42501");
            client.batch_execute("ROLLBACK").unwrap();
            let statistics = "SELECT count(*) FROM pg_stats WHERE schemaname = 'meshhook_secrets' AND tablename = $1";
            assert_eq!(client.query_one(statistics, &[&table]).unwrap().get::<_, i64>(0), 0);
        }
    }
}

#[test]
fn metadata_is_shown_within_ones_own_projects_only() {
    let World { db, alice, project } = world();
    let (bob, eve) = (Uuid::new_v4(), Uuid::new_v4());
    let bobs = db.project(bob);
    put(&mut db.user(bob), bobs, "TOKEN", "x").unwrap();
    db.superuser().batch_execute("ANALYZE").unwrap();
    assert_eq!(visible(&mut db.user(alice)), [project]);
    assert_eq!(visible(&mut db.user(bob)), [bobs]);
    assert!(visible(&mut db.user(eve)).is_empty());
    assert_eq!(visible(&mut db.service()).len(), 2);
    // Not through statistics, nor through a function that the planner could run too early.
    let mut user = db.user(eve);
    let statistics = "SELECT count(*) FROM pg_stats WHERE schemaname = 'meshhook_secrets'";
    assert_eq!(user.query_one(statistics, &[]).unwrap().get::<_, i64>(0), 0);
    user.batch_execute(
        "CREATE TEMP TABLE seen (name text);
         CREATE FUNCTION pg_temp.peek(name text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
            AS $$ BEGIN INSERT INTO pg_temp.seen VALUES (name); RETURN true; END $$",
    )
    .unwrap();
    user.query("SELECT FROM meshhook_secrets.project_secrets WHERE pg_temp.peek(name)", &[])
        .unwrap();
    let seen = user.query_one("SELECT count(*) FROM pg_temp.seen", &[]).unwrap();
    assert_eq!(seen.get::<_, i64>(0), 0);
}

#[test]
fn without_the_right_to_reveal_no_detour_reveals() {
    let World { db, alice, project } = world();
    let owner = format!("{}_owner", db.name());
    db.superuser()
        .batch_execute(&format!(
            "SELECT meshhook_secrets.setup_supabase(false);
             CREATE ROLE {owner} IN ROLE meshhook_secrets_reader;
             GRANT EXECUTE ON FUNCTION public.user_project_ids() TO {owner};
             CREATE SCHEMA detour AUTHORIZATION {owner};
             GRANT USAGE ON SCHEMA detour TO authenticated;
             SET ROLE {owner};
             CREATE VIEW detour.view AS SELECT meshhook_secrets.secret_get('{project}', 'TOKEN');
             CREATE VIEW detour.rows AS SELECT value FROM meshhook_secrets.secret_get_many('{project}');
             CREATE VIEW detour.invoker WITH (security_invoker) AS
                SELECT meshhook_secrets.secret_get('{project}', 'TOKEN');
             CREATE FUNCTION detour.sql() RETURNS text LANGUAGE sql
                RETURN meshhook_secrets.secret_get('{project}', 'TOKEN');
             CREATE FUNCTION detour.plpgsql() RETURNS text LANGUAGE plpgsql
                AS $$ BEGIN RETURN meshhook_secrets.secret_get('{project}', 'TOKEN'); END $$;
             CREATE FUNCTION detour.definer() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = ''
                RETURN meshhook_secrets.secret_get('{project}', 'TOKEN');
             GRANT SELECT ON ALL TABLES IN SCHEMA detour TO authenticated;
             RESET ROLE"
        ))
        .unwrap();
    let mut user = db.user(alice);
    for detour in [
        "SELECT * FROM detour.view",
        "SELECT * FROM detour.rows",
        "SELECT * FROM detour.invoker",
        "SELECT detour.sql()",
        "SELECT detour.plpgsql()",
        "EXPLAIN ANALYZE SELECT * FROM detour.view",
    ] {
        expect_error(user.query(detour, &[]), "42501")
            .message("permission denied for function")
            .hides("hush");
    }
    for thing in [
        "CREATE OPERATOR pg_temp.## (LEFTARG = uuid, RIGHTARG = text, FUNCTION = meshhook_secrets.secret_get)",
        "CREATE AGGREGATE pg_temp.reveal(text) (SFUNC = meshhook_secrets.secret_get, STYPE = uuid)",
        "DO $$ BEGIN PERFORM meshhook_secrets.secret_get(gen_random_uuid(), 'TOKEN'); END $$",
    ] {
        assert!(user.batch_execute(thing).is_err(), "{thing}");
    }
    // Who lends the right on purpose lends it to members only.
    let lent = user.query_one("SELECT detour.definer()", &[]).unwrap();
    assert_eq!(lent.get::<_, String>(0), "hush");
    expect_error(db.user(Uuid::new_v4()).query("SELECT detour.definer()", &[]), "42501")
        .hides("hush");
}

#[test]
fn internal_functions_cannot_be_borrowed() {
    let World { db, alice, project } = world();
    db.superuser().batch_execute("CREATE SCHEMA own AUTHORIZATION authenticated").unwrap();
    let before = stored(&db);
    for mut client in [db.user(alice), db.service()] {
        client.batch_execute("CREATE TEMP TABLE bait (id uuid)").unwrap();
        client.execute("INSERT INTO bait VALUES ($1)", &[&project]).unwrap();
        for function in
            ["host_project_changed('id')", "refuse_direct_change()", "remove_versions()"]
        {
            let trigger = format!(
                "CREATE TRIGGER t AFTER DELETE ON bait FOR EACH ROW EXECUTE FUNCTION meshhook_secrets.{function}"
            );
            expect_error(client.batch_execute(&trigger), "42501")
                .message("permission denied for function");
        }
        for function in ["host_project_changed", "refuse_direct_change", "remove_versions"] {
            let call = format!("SELECT meshhook_secrets.{function}()");
            assert!(client.batch_execute(&call).is_err());
        }
        client.batch_execute("DELETE FROM bait").unwrap();
    }
    assert_eq!(stored(&db), before);
    let mut user = db.user(alice);
    let own = "SELECT meshhook_secrets.member_projects()";
    assert_eq!(user.query_one(own, &[]).unwrap().get::<_, Vec<Uuid>>(0), [project]);
    expect_error(db.anon().query(own, &[]), "42501");
}

#[test]
fn ordinary_roles_neither_see_nor_change_the_settings() {
    let World { db, alice, .. } = world();
    let key = Cluster::shared().root_key_path().display().to_string();
    let hidden = ["meshhook_secrets.root_key_file", "meshhook_secrets.root_key_command"];
    let mut superuser = db.superuser();
    let shown: String = superuser.query_one(&format!("SHOW {}", hidden[0]), &[]).unwrap().get(0);
    assert_eq!(shown, key);
    for mut client in [db.user(alice), db.service(), db.anon(), login(&db, "x", "", alice)] {
        for setting in hidden {
            for peek in [
                format!("SHOW {setting}"),
                format!("SELECT current_setting('{setting}')"),
                format!("SELECT current_setting('{setting}', true)"),
            ] {
                expect_error(client.query(&peek, &[]), "42501").hides(&key);
            }
            expect_error(client.batch_execute(&format!("SET {setting} = '/tmp/x'")), "55P02");
        }
        for everything in ["SHOW ALL", "TABLE pg_settings"] {
            for row in client.simple_query(everything).unwrap() {
                assert!(!format!("{row:?}").contains(&key), "{everything} shows the root key file");
            }
        }
        expect_error(client.batch_execute("TABLE pg_file_settings"), "42501");

        let before = all_settings(&mut client);
        assert_eq!(before.len(), 10);
        for setting in ["max_value_size", "max_versions", "recovery_window"] {
            for change in [
                format!("SET meshhook_secrets.{setting} = 7"),
                format!("SELECT set_config('meshhook_secrets.{setting}', '7', false)"),
                format!("ALTER ROLE CURRENT_USER SET meshhook_secrets.{setting} = 7"),
                format!("ALTER DATABASE {} SET meshhook_secrets.{setting} = 7", db.name()),
                format!("ALTER SYSTEM SET meshhook_secrets.{setting} = 7"),
                format!(
                    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET meshhook_secrets.{setting} = 7 AS 'SELECT 1'"
                ),
            ] {
                expect_error(client.batch_execute(&change), "42501");
            }
        }
        expect_error(client.batch_execute("SET meshhook_secrets.root_key_timeout = 1000"), "55P02");
        expect_error(client.batch_execute("SET meshhook_secrets.misspelt = 1"), "42602");
        assert_eq!(all_settings(&mut client), before);
    }
}

// --- the host's binding ------------------------------------------------------------------------

#[test]
fn a_reveal_function_narrows_who_reveals_and_nothing_else() {
    let World { db, alice, project } = world();
    let (bob, eve) = (Uuid::new_v4(), Uuid::new_v4());
    db.add_member(project, bob);
    // Owners may reveal; eve is let reveal everything, but is a member of nothing.
    db.superuser()
        .batch_execute(&format!(
            "CREATE FUNCTION public.may_reveal() RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER
                SET search_path = ''
                AS $$ SELECT id FROM public.projects WHERE owner = auth.uid() OR auth.uid() = '{eve}' $$;
             SELECT meshhook_secrets.attach_projects('public.projects',
                member_function => 'public.user_project_ids()', reveal_function => 'public.may_reveal()')"
        ))
        .unwrap();
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
    assert_eq!(get(&mut db.service(), project, "TOKEN").unwrap(), "hush");

    let mut member = db.user(bob);
    let none = expect_error(get(&mut member, Uuid::new_v4(), "TOKEN"), "42501");
    for reveal in REVEALS {
        let failure = expect_error(call(&mut member, reveal, project), "42501").hides("hush");
        assert_eq!(texts(&failure), texts(&none), "{reveal}");
        expect_error(call(&mut db.user(eve), reveal, project), "42501").hides("hush");
    }
    assert_eq!(names(&mut member, project), ["TOKEN"]);
    assert_eq!(put(&mut member, project, "TOKEN", "two").unwrap(), 2);
    expect_error(call(&mut db.user(eve), "secret_list($1)", project), "42501");

    // Without the function nobody reveals, rather than everybody.
    db.superuser().batch_execute("DROP FUNCTION public.may_reveal()").unwrap();
    for reveal in REVEALS {
        expect_error(call(&mut db.user(alice), reveal, project), "42501");
    }
    assert_eq!(names(&mut db.user(alice), project), ["TOKEN"]);
}

#[test]
fn owners_are_the_members_where_there_is_no_member_function() {
    for (column_type, subject) in
        [("uuid", Uuid::new_v4().to_string()), ("text", "auth0|42".into())]
    {
        let db = Cluster::shared().database();
        let project = Uuid::new_v4();
        db.superuser()
            .batch_execute(&format!(
                "CREATE TABLE public.spaces (key uuid PRIMARY KEY, boss {column_type});
                 INSERT INTO public.spaces VALUES ('{project}', '{subject}'), (gen_random_uuid(), NULL);
                 ALTER TABLE public.spaces ENABLE ROW LEVEL SECURITY;
                 SELECT meshhook_secrets.attach_projects('public.spaces', 'key', 'boss')"
            ))
            .unwrap();
        let mut user = db.user(Uuid::new_v4());
        claim(&mut user, &json!({"sub": subject}));
        put(&mut user, project, "TOKEN", "hush").unwrap();
        assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
        let stranger = expect_error(get(&mut db.user(Uuid::new_v4()), project, "TOKEN"), "42501");
        // Claims that cannot be an owner are nobody's; no error tells more than that.
        for nobody in [
            json!({"sub": ""}),
            json!({"sub": "x"}),
            json!({"sub": format!("{{{subject}")}),
            json!({"sub": format!("{subject} ")}),
            json!({"sub": "auth0|42' OR true --"}),
            json!({"sub": "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"}),
            json!({"sub": null}),
            json!({"sub": [subject]}),
            json!({"sub": subject.repeat(50)}),
            json!([subject]),
            json!({}),
        ] {
            claim(&mut user, &nobody);
            let failure = expect_error(get(&mut user, project, "TOKEN"), "42501");
            assert_eq!(texts(&failure), texts(&stranger), "{nobody}");
            assert!(visible(&mut user).is_empty(), "{nobody}");
        }
        for broken in ["", "nonsense", "{\"sub\":", "\"sub\""] {
            user.execute("SELECT set_config('request.jwt.claims', $1, false)", &[&broken]).unwrap();
            expect_error(get(&mut user, project, "TOKEN"), "42501");
        }
        claim(&mut user, &json!({"sub": subject}));
        assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
    }
}

#[test]
fn a_member_function_that_is_gone_or_replaced_locks_out() {
    let World { db, alice, project } = world();
    let mallory = format!("{}_mallory", db.name());
    let everything = "LANGUAGE sql STABLE AS 'SELECT id FROM public.projects'";
    let mut superuser = db.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {mallory}; GRANT CREATE, USAGE ON SCHEMA public TO {mallory};
             GRANT SELECT ON public.projects TO {mallory}"
        ))
        .unwrap();
    // A session that already trusts the function.
    let mut user = db.user(alice);
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");

    let mut replaced = |by: &str| {
        superuser
            .batch_execute("DROP ROUTINE IF EXISTS public.user_project_ids() CASCADE")
            .unwrap();
        superuser.batch_execute(by).unwrap();
        superuser
            .batch_execute(
                "DO $$ BEGIN GRANT EXECUTE ON ROUTINE public.user_project_ids() TO PUBLIC;
                EXCEPTION WHEN undefined_function THEN END $$",
            )
            .unwrap();
    };
    replaced("");
    locked_out(&db, &mut user, project);
    replaced(&format!(
        "SET ROLE {mallory}; CREATE FUNCTION public.user_project_ids() RETURNS SETOF uuid {everything}; RESET ROLE"
    ));
    locked_out(&db, &mut user, project);
    // Of the right owner, but no longer of the right kind.
    for other in [
        "CREATE FUNCTION public.user_project_ids() RETURNS SETOF text LANGUAGE sql AS 'SELECT id::text FROM public.projects'",
        "CREATE FUNCTION public.user_project_ids() RETURNS SETOF bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "CREATE FUNCTION public.user_project_ids() RETURNS SETOF public.projects LANGUAGE sql AS 'TABLE public.projects'",
        "CREATE FUNCTION public.user_project_ids() RETURNS TABLE (a uuid, b uuid) LANGUAGE sql AS 'SELECT id, id FROM public.projects'",
        "CREATE FUNCTION public.user_project_ids() RETURNS void LANGUAGE sql AS ''",
        "CREATE PROCEDURE public.user_project_ids() LANGUAGE sql AS ''",
    ] {
        replaced(other);
        locked_out(&db, &mut user, project);
        if other.contains("PROCEDURE") {
            db.superuser().batch_execute("DROP PROCEDURE public.user_project_ids()").unwrap();
        }
    }
    // The server side needs no membership.
    assert_eq!(get(&mut db.service(), project, "TOKEN").unwrap(), "hush");

    replaced(&format!(
        "CREATE FUNCTION public.user_project_ids() RETURNS SETOF uuid SECURITY DEFINER {everything}"
    ));
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
}

#[test]
fn a_projects_table_that_is_gone_or_replaced_locks_out() {
    for attach in [
        "SELECT meshhook_secrets.attach_projects('public.projects', member_function => 'public.user_project_ids()')",
        "SELECT meshhook_secrets.attach_projects('public.projects')",
    ] {
        let World { db, alice, project } = world();
        let mallory = format!("{}_mallory", db.name());
        db.superuser().batch_execute(attach).unwrap();
        let mut user = db.user(alice);
        assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");

        db.superuser()
            .batch_execute(&format!(
                "CREATE ROLE {mallory}; GRANT CREATE, USAGE ON SCHEMA public TO {mallory};
                 DROP TABLE public.projects CASCADE"
            ))
            .unwrap();
        locked_out(&db, &mut user, project);
        locked_out(&db, &mut db.user(alice), project);
        expect_error(put(&mut db.service(), Uuid::new_v4(), "TOKEN", "x"), "42501");

        // Whoever may create tables there cannot make themselves the owner of other people's
        // secrets: the binding was to another table.
        let eve = Uuid::new_v4();
        db.superuser()
            .batch_execute(&format!(
                "SET ROLE {mallory};
                 CREATE TABLE public.projects (id uuid PRIMARY KEY, owner uuid);
                 INSERT INTO public.projects VALUES ('{project}', '{eve}');
                 RESET ROLE"
            ))
            .unwrap();
        locked_out(&db, &mut user, project);
        locked_out(&db, &mut db.user(eve), project);
    }
}

#[test]
fn a_renamed_id_or_owner_column_locks_out() {
    for (rename, attach) in [
        ("id", "SELECT meshhook_secrets.attach_projects('public.projects')"),
        ("owner", "SELECT meshhook_secrets.attach_projects('public.projects')"),
    ] {
        let World { db, alice, project } = world();
        db.superuser().batch_execute(attach).unwrap();
        assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
        let sql = format!("ALTER TABLE public.projects RENAME COLUMN {rename} TO renamed");
        db.superuser().batch_execute(&sql).unwrap();
        for any in CALLS {
            assert!(
                call(&mut db.user(alice), any, project).is_err(),
                "{any} after renaming {rename}"
            );
        }
    }
}

#[test]
fn deleting_a_project_shreds_its_keys_and_secrets() {
    let World { db, alice, project } = world();
    let kept = db.project(alice);
    put(&mut db.user(alice), kept, "TOKEN", "kept").unwrap();
    put(&mut db.user(alice), project, "TOKEN", "two").unwrap();
    put(&mut db.user(alice), project, "GONE", "x").unwrap();
    call(&mut db.user(alice), "secret_delete($1, 'GONE')", project).unwrap();
    assert_eq!(rows_of(&db, project), [1, 2, 3]);

    // A deletion that does not happen removes nothing.
    let mut user = db.user(alice);
    user.batch_execute("BEGIN").unwrap();
    assert_eq!(user.execute("DELETE FROM public.projects WHERE id = $1", &[&project]).unwrap(), 1);
    user.batch_execute("ROLLBACK").unwrap();
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "two");

    // By the owner, who has no right to the tables.
    assert_eq!(user.execute("DELETE FROM public.projects WHERE id = $1", &[&project]).unwrap(), 1);
    assert_eq!(rows_of(&db, project), [0, 0, 0]);
    assert_eq!(get(&mut user, kept, "TOKEN").unwrap(), "kept");
    for any in CALLS {
        expect_error(call(&mut user, any, project), "42501");
    }
    // A project made anew with the same id starts empty.
    db.superuser()
        .execute("INSERT INTO public.projects (id, owner) VALUES ($1, $2)", &[&project, &alice])
        .unwrap();
    assert!(names(&mut user, project).is_empty());

    // And by a role that has no right to anything of ours.
    let mut janitor = login(&db, "janitor", "BYPASSRLS", alice);
    db.superuser()
        .batch_execute(&format!("GRANT SELECT, DELETE ON public.projects TO {}_janitor", db.name()))
        .unwrap();
    assert_eq!(janitor.execute("DELETE FROM public.projects WHERE id = $1", &[&kept]).unwrap(), 1);
    assert_eq!(rows_of(&db, kept), [0, 0, 0]);
}

#[test]
fn truncating_the_projects_shreds_all_keys_and_secrets() {
    let World { db, alice, project } = world();
    let other = db.project(alice);
    put(&mut db.user(alice), other, "TOKEN", "x").unwrap();
    let mut superuser = db.superuser();
    superuser.batch_execute("BEGIN; TRUNCATE public.projects CASCADE; ROLLBACK").unwrap();
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
    superuser.batch_execute("TRUNCATE public.projects CASCADE").unwrap();
    for project in [project, other] {
        assert_eq!(rows_of(&db, project), [0, 0, 0]);
    }
}

#[test]
fn the_id_of_a_project_with_secrets_cannot_change() {
    let World { db, alice, project } = world();
    let empty = db.project(alice);
    let change = "UPDATE public.projects SET id = gen_random_uuid() WHERE id = $1";
    let before = stored(&db);
    for mut client in [db.superuser(), db.user(alice), db.service()] {
        let failure = expect_error(client.execute(change, &[&project]), "23503")
            .message("project has secrets");
        assert!(!failure.detail.is_empty() && !failure.hint.is_empty());
    }
    let upsert = "INSERT INTO public.projects (id, owner) VALUES ($1, $2)
        ON CONFLICT (id) DO UPDATE SET id = gen_random_uuid()";
    expect_error(db.superuser().execute(upsert, &[&project, &alice]), "23503");
    assert_eq!(stored(&db), before);
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
    // Everything else may.
    let rest = "UPDATE public.projects SET id = id, name = 'new' WHERE id = $1";
    assert_eq!(db.user(alice).execute(rest, &[&project]).unwrap(), 1);
    assert_eq!(db.user(alice).execute(change, &[&empty]).unwrap(), 1);
}

#[test]
fn projects_in_partitions_are_held_to_the_same() {
    let db = Cluster::shared().database();
    let subject = Uuid::new_v4();
    db.superuser()
        .batch_execute(
            "CREATE TABLE public.parted (id uuid PRIMARY KEY, owner uuid) PARTITION BY HASH (id);
             CREATE TABLE public.part_0 PARTITION OF public.parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE public.part_1 PARTITION OF public.parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             SELECT meshhook_secrets.attach_projects('public.parted')",
        )
        .unwrap();
    let mut user = db.user(subject);
    let mut new_project = || -> Uuid {
        let project = Uuid::new_v4();
        db.superuser()
            .execute("INSERT INTO public.parted VALUES ($1, $2)", &[&project, &subject])
            .unwrap();
        put(&mut user, project, "TOKEN", "hush").unwrap();
        project
    };
    let (project, other, third) = (new_project(), new_project(), new_project());

    // Within a partition or from one to the other: eight ids do not all lie in the same.
    for _ in 0..8 {
        let sql = "UPDATE public.parted SET id = $2 WHERE id = $1";
        expect_error(db.superuser().execute(sql, &[&project, &Uuid::new_v4()]), "23503");
        assert_eq!(rows_of(&db, project), [1, 1, 1]);
    }
    db.superuser().execute("DELETE FROM public.parted WHERE id = $1", &[&project]).unwrap();
    assert_eq!(rows_of(&db, project), [0, 0, 0]);
    for partition in ["part_0", "part_1"] {
        let sql = format!("DELETE FROM public.{partition} WHERE id = $1");
        db.superuser().execute(&sql, &[&other]).unwrap();
    }
    assert_eq!(rows_of(&db, other), [0, 0, 0]);
    db.superuser().batch_execute("TRUNCATE public.parted").unwrap();
    assert_eq!(rows_of(&db, third), [0, 0, 0]);
}

#[test]
fn attaching_again_replaces_the_binding() {
    let World { db, alice, project } = world();
    db.superuser()
        .batch_execute(
            "CREATE TABLE public.\"Odd \"\"Name\" (\"the id\" uuid UNIQUE NOT NULL, \"who's\" text);
             SELECT meshhook_secrets.attach_projects('public.\"Odd \"\"Name\"', 'the id', 'who''s')",
        )
        .unwrap();
    locked_out(&db, &mut db.user(alice), project);
    let triggers = "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger
        WHERE tgfoid = 'meshhook_secrets.host_project_changed()'::regprocedure ORDER BY 1";
    let on: Vec<String> =
        db.superuser().query(triggers, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(on, ["\"Odd \"\"Name\""]);

    let other = Uuid::new_v4();
    db.superuser()
        .execute(
            "INSERT INTO public.\"Odd \"\"Name\" VALUES ($1, $2)",
            &[&other, &alice.to_string()],
        )
        .unwrap();
    put(&mut db.user(alice), other, "TOKEN", "x").unwrap();
    let rename = "UPDATE public.\"Odd \"\"Name\" SET \"the id\" = gen_random_uuid()";
    expect_error(db.superuser().batch_execute(rename), "23503");
    db.superuser().batch_execute("DELETE FROM public.\"Odd \"\"Name\"").unwrap();
    assert_eq!(rows_of(&db, other), [0, 0, 0]);

    // Back again: what was stored then is there.
    let back = "SELECT meshhook_secrets.attach_projects('public.projects', member_function => 'public.user_project_ids()')";
    for _ in 0..2 {
        db.superuser().batch_execute(back).unwrap();
        assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
    }
}

#[test]
fn bad_bindings_are_refused_and_change_nothing() {
    let World { db, alice, project } = world();
    let mallory = format!("{}_mallory", db.name());
    db.superuser()
        .batch_execute(&format!(
            "CREATE ROLE {mallory}; GRANT CREATE, USAGE ON SCHEMA public TO {mallory};
             CREATE VIEW public.a_view AS TABLE public.projects;
             CREATE TABLE public.no_key (id uuid, owner uuid);
             CREATE TABLE public.text_id (id text PRIMARY KEY, owner uuid);
             CREATE TABLE public.wide_key (id uuid, n int, owner uuid, PRIMARY KEY (id, n));
             CREATE TABLE public.partial_key (id uuid, owner uuid);
             CREATE UNIQUE INDEX ON public.partial_key (id) WHERE owner IS NOT NULL;
             CREATE TABLE public.computed_key (id uuid, owner uuid);
             CREATE UNIQUE INDEX ON public.computed_key ((id::text));
             CREATE TABLE public.int_owner (id uuid PRIMARY KEY, owner int);
             CREATE FUNCTION public.f_argument(int) RETURNS SETOF uuid LANGUAGE sql AS 'SELECT NULL::uuid';
             CREATE FUNCTION public.f_default(a int = 1) RETURNS SETOF uuid LANGUAGE sql AS 'SELECT NULL::uuid';
             CREATE FUNCTION public.f_single() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid';
             CREATE FUNCTION public.f_text() RETURNS SETOF text LANGUAGE sql AS 'SELECT NULL::text';
             CREATE FUNCTION public.f_two() RETURNS TABLE (a uuid, b uuid) LANGUAGE sql AS 'SELECT NULL::uuid, NULL::uuid';
             CREATE PROCEDURE public.a_procedure() LANGUAGE sql AS '';
             SET ROLE {mallory};
             CREATE FUNCTION public.f_foreign() RETURNS SETOF uuid LANGUAGE sql AS 'SELECT id FROM public.projects';
             RESET ROLE"
        ))
        .unwrap();
    let before = stored(&db);
    let mut superuser = db.superuser();
    for (arguments, state) in [
        ("NULL", "22004"),
        ("'public.projects', NULL", "22004"),
        ("'public.projects', 'id', NULL", "22004"),
        ("'public.a_view'", "22023"),
        ("'public.projects_pkey'", "22023"),
        ("4294967295::oid::regclass", "22023"),
        ("'public.no_key'", "22023"),
        ("'public.text_id'", "22023"),
        ("'public.wide_key'", "22023"),
        ("'public.partial_key'", "22023"),
        ("'public.computed_key'", "22023"),
        ("'public.projects', 'name'", "22023"),
        ("'public.projects', 'nope'", "22023"),
        ("'public.projects', 'ctid'", "22023"),
        ("'public.projects', 'id', 'nope'", "22023"),
        ("'public.int_owner'", "22023"),
        ("'public.projects', 'id', 'ctid'", "22023"),
        ("'public.projects', member_function => 'public.f_argument(int)'", "22023"),
        ("'public.projects', member_function => 'public.f_default(int)'", "22023"),
        ("'public.projects', member_function => 'public.f_single()'", "22023"),
        ("'public.projects', member_function => 'public.f_text()'", "22023"),
        ("'public.projects', member_function => 'public.f_two()'", "22023"),
        ("'public.projects', member_function => 'public.a_procedure()'", "22023"),
        ("'public.projects', member_function => 'public.f_foreign()'", "22023"),
        ("'public.projects', member_function => 4294967295::oid::regprocedure", "22023"),
        ("'public.projects', reveal_function => 'public.f_foreign()'", "22023"),
        ("'public.projects', reveal_function => 'public.f_text()'", "22023"),
    ] {
        let sql = format!("SELECT meshhook_secrets.attach_projects({arguments})");
        let failure = expect_error(superuser.query(&sql, &[]), state);
        assert!(!failure.detail.is_empty(), "no DETAIL for {arguments}");
        assert!(!failure.hint.is_empty(), "no HINT for {arguments}");
    }
    assert_eq!(stored(&db), before);
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");

    // A table that belongs to another role may bring that role's own function.
    superuser
        .batch_execute(&format!(
            "ALTER TABLE public.projects OWNER TO {mallory};
             SELECT meshhook_secrets.attach_projects('public.projects', member_function => 'public.f_foreign()')"
        ))
        .unwrap();
}

#[test]
fn setup_without_the_roles_of_supabase_says_so() {
    let cluster = Cluster::builder().start();
    let mut superuser = cluster.connect("postgres", "postgres");
    superuser.batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    let setup = "SELECT meshhook_secrets.setup_supabase($1)";
    expect_error(superuser.query(setup, &[&None::<bool>]), "22004")
        .detail("users_may_reveal")
        .hint("true or false");
    expect_error(superuser.query(setup, &[&true]), "42704")
        .detail("anon")
        .hint("meshhook_secrets_writer");
}

// --- hijacking -----------------------------------------------------------------------------------

#[test]
fn functions_operators_and_tables_of_the_caller_change_nothing() {
    let World { db, alice, project } = world();
    let kept = db.project(alice);
    trap(&db, "authenticated");
    let mut warm = db.user(alice);
    assert_eq!(get(&mut warm, project, "TOKEN").unwrap(), "hush");
    // A session that has plans already, and one that makes them in the trap.
    for mut user in [warm, db.user(alice)] {
        user.batch_execute("SET search_path = evil, pg_catalog, public").unwrap();
        expect_error(user.query("SELECT 'a'::text = 'b'::text", &[]), "P0001").message("sprung");
        for temporary in TABLES.iter().chain(AUDIT_TABLES).chain(&[
            "projects",
            "pg_class",
            "pg_proc",
            "pg_namespace",
        ]) {
            user.batch_execute(&format!("CREATE TEMP TABLE {temporary} (LIKE evil.bait)")).unwrap();
        }
        let sprung = sprung(&db);
        assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
        expect_error(get(&mut user, kept, "TOKEN"), "PT404");
        for any in CALLS.iter().filter(|call| !call.contains("undelete")) {
            let result = call(&mut user, any, kept);
            let state =
                result.err().and_then(|error| error.code().map(|code| code.code().to_owned()));
            let state = state.unwrap_or_default();
            assert!(["", "PT404", "PT410"].contains(&&*state), "{any}: {state}");
        }
        expect_error(call(&mut user, "secret_get($1, 'TOKEN')", Uuid::new_v4()), "42501");
        for (path, name) in [("pg_temp, evil", "A"), ("evil, pg_catalog", "B"), ("", "C")] {
            user.execute("SELECT pg_catalog.set_config('search_path', $1, false)", &[&path])
                .unwrap();
            put(&mut user, kept, name, "x").unwrap();
            assert_eq!(get(&mut user, kept, name).unwrap(), "x");
        }
        assert_eq!(self::sprung(&db), sprung, "the caller's own objects were used");
        assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
    }
}

#[test]
fn the_first_keys_of_a_database_are_made_without_the_callers_objects() {
    let db = Cluster::shared().database();
    let alice = Uuid::new_v4();
    let project = db.project(alice);
    trap(&db, "authenticated");
    let mut user = db.user(alice);
    user.batch_execute("SET search_path = evil, pg_catalog, public").unwrap();
    put(&mut user, project, "TOKEN", "hush").unwrap();
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
    assert_eq!(sprung(&db), 0);
}

#[test]
fn deleting_a_project_from_a_hostile_search_path_runs_nothing_of_the_caller() {
    let World { db, alice, project } = world();
    let other = db.project(alice);
    put(&mut db.user(alice), other, "TOKEN", "x").unwrap();
    let mut janitor = login(&db, "janitor", "BYPASSRLS", alice);
    let role = format!("{}_janitor", db.name());
    trap(&db, &role);
    let grant = format!(
        "GRANT SELECT, UPDATE, DELETE, TRUNCATE ON public.projects, public.project_members TO {role}"
    );
    db.superuser().batch_execute(&grant).unwrap();
    janitor.batch_execute("SET search_path = evil, pg_catalog, public").unwrap();
    let delete = "DELETE FROM public.projects WHERE id OPERATOR(pg_catalog.=) $1";
    let rename = "UPDATE public.projects SET id = $2 WHERE id OPERATOR(pg_catalog.=) $1";
    expect_error(janitor.execute(rename, &[&project, &Uuid::new_v4()]), "23503");
    assert_eq!(janitor.execute(delete, &[&project]).unwrap(), 1);
    assert_eq!(rows_of(&db, project), [0, 0, 0]);
    janitor.batch_execute("TRUNCATE public.projects, public.project_members").unwrap();
    assert_eq!(rows_of(&db, other), [0, 0, 0]);
    assert_eq!(sprung(&db), 0, "the caller's own objects were used");
}

#[test]
fn an_administrator_in_a_hostile_search_path_runs_nothing_of_others() {
    let World { db, alice, project } = world();
    trap(&db, "authenticated");
    let mut superuser = db.superuser();
    superuser.batch_execute("SET search_path = evil, pg_catalog, public").unwrap();
    for temporary in ["pg_class", "pg_proc", "pg_roles", "settings"] {
        superuser
            .batch_execute(&format!("CREATE TEMP TABLE {temporary} (LIKE evil.bait)"))
            .unwrap();
    }
    superuser
        .batch_execute(
            "SELECT meshhook_secrets.setup_supabase(true);
             SELECT meshhook_secrets.attach_projects('public.projects', member_function => 'public.user_project_ids()');
             SELECT meshhook_secrets.seal_status();
             SELECT meshhook_secrets.root_key_status()",
        )
        .unwrap();
    call(&mut superuser, "seal($1)", project).unwrap();
    call(&mut superuser, "unseal($1)", project).unwrap();
    assert_eq!(get(&mut superuser, project, "TOKEN").unwrap(), "hush");
    assert_eq!(sprung(&db), 0, "others' objects were used");
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
}

#[test]
fn the_extension_is_not_created_among_the_traps_of_another_role() {
    let db = Cluster::shared().empty_database();
    let mallory = format!("{}_mallory", db.name());
    let mut superuser = db.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {mallory}; CREATE SCHEMA meshhook_secrets AUTHORIZATION {mallory}"
        ))
        .unwrap();
    let create = "CREATE EXTENSION meshhook_secrets";
    expect_error(superuser.batch_execute(create), "42501").hint("rename that schema");
    // In a search_path full of them it takes no notice.
    superuser.batch_execute("DROP SCHEMA meshhook_secrets").unwrap();
    trap(&db, &mallory);
    superuser.batch_execute("SET search_path = evil, pg_catalog").unwrap();
    superuser.batch_execute(create).unwrap();
    assert_eq!(sprung(&db), 0);
}

// --- helpers ---------------------------------------------------------------------------------------

/// A database where alice has a project with the secret TOKEN, worth `hush`.
struct World {
    db: Database<'static>,
    alice: Uuid,
    project: Uuid,
}

fn world() -> World {
    let db = Cluster::shared().database();
    let alice = Uuid::new_v4();
    let project = db.project(alice);
    put(&mut db.user(alice), project, "TOKEN", "hush").unwrap();
    World { db, alice, project }
}

/// Calls a function with a project as `$1`.
fn call(client: &mut Client, call: &str, project: Uuid) -> Result<Vec<Row>, postgres::Error> {
    client.query(&format!("SELECT * FROM meshhook_secrets.{call}"), &[&project])
}

fn put(
    client: &mut Client,
    project: Uuid,
    name: &str,
    value: &str,
) -> Result<i32, postgres::Error> {
    let sql = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";
    Ok(client.query_one(sql, &[&project, &name, &value])?.get(0))
}

fn get(client: &mut Client, project: Uuid, name: &str) -> Result<String, postgres::Error> {
    let sql = "SELECT meshhook_secrets.secret_get($1, $2)";
    Ok(client.query_one(sql, &[&project, &name])?.get(0))
}

fn names(client: &mut Client, project: Uuid) -> Vec<String> {
    let rows = call(client, "secret_list($1)", project).unwrap();
    rows.iter().map(|row| row.get("name")).collect()
}

/// The projects of the rows that the caller sees in the table itself.
fn visible(client: &mut Client) -> Vec<Uuid> {
    let sql = "SELECT project_id FROM meshhook_secrets.project_secrets";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn claim(client: &mut Client, claims: &Value) {
    let sql = "SELECT pg_catalog.set_config('request.jwt.claims', $1, false)";
    client.execute(sql, &[&claims.to_string()]).unwrap();
}

fn become_role(client: &mut Client, role: &str, claims: &Value) {
    claim(client, claims);
    client.execute("SELECT set_config('role', $1, false)", &[&role]).unwrap();
}

/// A role of its own that logs in, outside of Supabase's, with the claims of a user.
fn login(db: &Database<'_>, label: &str, options: &str, user: Uuid) -> Client {
    let role = format!("{}_{label}", db.name());
    db.superuser()
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN {options}; GRANT USAGE ON SCHEMA public, auth TO {role};
             GRANT EXECUTE ON FUNCTION public.user_project_ids() TO {role}"
        ))
        .unwrap();
    let mut client = db.connect(&role);
    claim(&mut client, &json!({"sub": user}));
    client
}

/// All that an error says.
fn texts(failure: &Failure) -> [&str; 5] {
    [&failure.code, &failure.message, &failure.detail, &failure.hint, &failure.context]
}

/// Nothing works for a user, and nothing changes.
fn locked_out(db: &Database<'_>, user: &mut Client, project: Uuid) {
    let before = stored(db);
    for any in CALLS {
        let result = call(user, any, project);
        assert!(result.is_err(), "{any} is not locked out");
        let failure = expect_error(result, "42501");
        assert!(!failure.detail.is_empty() && !failure.hint.is_empty(), "{any}: {failure:?}");
    }
    let rows = user.query("SELECT id FROM meshhook_secrets.project_secrets", &[]);
    assert!(rows.is_err() || rows.is_ok_and(|rows| rows.is_empty()), "rows are visible");
    assert_eq!(stored(db), before);
}

/// All that our tables hold.
fn stored(db: &Database<'_>) -> String {
    let tables: Vec<_> = TABLES
        .iter()
        .map(|table| {
            format!("(SELECT json_agg(t ORDER BY t::text)::text FROM meshhook_secrets.{table} t)")
        })
        .collect();
    let sql = format!("SELECT concat_ws(chr(10), {})", tables.join(", "));
    db.superuser().query_one(&sql, &[]).unwrap().get(0)
}

/// How many data keys, secrets and versions a project has.
fn rows_of(db: &Database<'_>, project: Uuid) -> [i64; 3] {
    ["data_keys", "project_secrets", "secret_versions"].map(|table| {
        let sql = format!("SELECT count(*) FROM meshhook_secrets.{table} WHERE project_id = $1");
        db.superuser().query_one(&sql, &[&project]).unwrap().get(0)
    })
}

/// Every privilege on anything of the extension.
fn privileges(db: &Database<'_>) -> String {
    let sql = "SELECT string_agg(line, chr(10) ORDER BY line) FROM (
        SELECT nspname || nspacl::text FROM pg_namespace WHERE nspname = 'meshhook_secrets'
        UNION ALL SELECT oid::regprocedure || proacl::text FROM pg_proc
            WHERE pronamespace = 'meshhook_secrets'::regnamespace
        UNION ALL SELECT typname || typacl::text FROM pg_type
            WHERE typnamespace = 'meshhook_secrets'::regnamespace
        UNION ALL SELECT relname || relacl::text FROM pg_class
            -- The audit log gets its months when there is something to record.
            WHERE relnamespace = 'meshhook_secrets'::regnamespace AND NOT relispartition
        UNION ALL SELECT relname || attname || attacl::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
            WHERE relnamespace = 'meshhook_secrets'::regnamespace
        UNION ALL SELECT m.roleid::regrole || ' has ' || m.member::regrole FROM pg_auth_members m
            WHERE m.member::regrole::text IN ('anon', 'authenticated', 'service_role')
        ) privilege (line)";
    db.superuser().query_one(sql, &[]).unwrap().get(0)
}

/// Ways to change a table without its functions. They need no privilege to read it, where that can
/// be avoided.
fn forgeries(table: &str) -> Vec<String> {
    let column = match table {
        "rotation_jobs" => "reason",
        "settings" => "value",
        _ => "created_at",
    };
    let column = if table == "project_secrets" { "current_version" } else { column };
    [
        "INSERT INTO $t DEFAULT VALUES",
        "INSERT INTO $t SELECT * FROM $t",
        "INSERT INTO $t DEFAULT VALUES ON CONFLICT DO NOTHING",
        "UPDATE $t SET $c = DEFAULT",
        "UPDATE $t SET $c = $c WHERE false",
        "DELETE FROM $t",
        "DELETE FROM $t WHERE false",
        "WITH gone AS (DELETE FROM $t RETURNING *) SELECT count(*) FROM gone",
        "TRUNCATE $t CASCADE",
        "MERGE INTO $t USING (SELECT) s ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
        "MERGE INTO $t USING (SELECT) s ON true WHEN MATCHED THEN DELETE",
        "DO $$ BEGIN DELETE FROM $t; END $$",
    ]
    .iter()
    .map(|sql| sql.replace("$t", &format!("meshhook_secrets.{table}")).replace("$c", column))
    .collect()
}

/// The SQLSTATE with which a COPY into a table fails. By psql: the driver gets out of step.
fn copy_in(db: &Database<'_>, user: &str, role: &str, table: &str) -> String {
    let mut psql = db.cluster().command("psql");
    psql.env("PGUSER", user).env("PGOPTIONS", format!("-c role={role}"));
    psql.args(["-X", "-v", "VERBOSITY=sqlstate", "-d", db.name(), "-c"]);
    psql.arg(format!("COPY meshhook_secrets.{table} FROM STDIN"));
    let error = String::from_utf8(psql.output().unwrap().stderr).unwrap();
    error.trim().trim_start_matches("ERROR:").trim().to_owned()
}

/// The extension's settings that a client sees.
fn all_settings(client: &mut Client) -> Vec<(String, String)> {
    let sql =
        "SELECT name, setting FROM pg_settings WHERE name LIKE 'meshhook\\_secrets.%' ORDER BY 1";
    client.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// A schema `evil` of a role, with functions, operators, types and tables that are named like those
/// that the extension uses. Whatever of it runs leaves a mark and fails.
fn trap(db: &Database<'_>, role: &str) {
    let mut sql = format!(
        "CREATE SCHEMA evil AUTHORIZATION {role};
         GRANT USAGE ON SCHEMA evil TO PUBLIC;
         SET ROLE {role};
         CREATE SEQUENCE evil.marks; GRANT ALL ON SEQUENCE evil.marks TO PUBLIC;
         CREATE TABLE evil.bait (id uuid, project_id uuid, name text, key text, value text, owner uuid);
         CREATE FUNCTION evil.spring() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_catalog.nextval('evil.marks');
            RAISE EXCEPTION 'sprung as %', current_user; END $$;"
    );
    let mut function = |name: &str, arguments: &str, result: &str| {
        sql += &format!(
            "CREATE FUNCTION evil.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql
                AS $$ BEGIN PERFORM evil.spring(); RETURN NULL; END $$;"
        );
    };
    for (name, arguments, result) in [
        ("now", "", "timestamptz"),
        ("clock_timestamp", "", "timestamptz"),
        ("gen_random_uuid", "", "uuid"),
        ("current_setting", "text", "text"),
        ("current_setting", "text, boolean", "text"),
        ("lower", "text", "text"),
        ("strpos", "text, text", "integer"),
        ("quote_ident", "text", "text"),
        ("format", "text, text", "text"),
        ("to_regrole", "text", "regrole"),
        ("member_projects", "", "uuid[]"),
        ("user_project_ids", "", "SETOF uuid"),
        ("getdatabaseencoding", "", "name"),
        ("pg_extension_config_dump", "regclass, text", "void"),
    ] {
        match result {
            "SETOF uuid" | "void" => {}
            _ => function(name, arguments, result),
        }
    }
    let mut operators = String::new();
    for (count, (operator, left, right)) in [
        ("=", "uuid", "uuid"),
        ("=", "text", "text"),
        ("=", "integer", "integer"),
        ("=", "oid", "oid"),
        ("=", "name", "name"),
        ("=", "name", "text"),
        ("=", "\"char\"", "\"char\""),
        ("=", "smallint", "smallint"),
        ("=", "boolean", "boolean"),
        ("<>", "text", "text"),
        ("<>", "name", "text"),
        ("<", "text", "text"),
        ("<", "timestamptz", "timestamptz"),
        ("<=", "timestamptz", "timestamptz"),
        (">", "text", "text"),
        (">", "integer", "integer"),
        ("||", "text", "text"),
    ]
    .into_iter()
    .enumerate()
    {
        let result = if operator == "||" { "text" } else { "boolean" };
        function(&format!("op_{count}"), &format!("{left}, {right}"), result);
        operators += &format!(
            "CREATE OPERATOR evil.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil.op_{count});"
        );
    }
    sql += &operators;
    for table in TABLES.iter().chain(AUDIT_TABLES).chain(&[
        "projects",
        "pg_class",
        "pg_proc",
        "pg_roles",
        "pg_namespace",
    ]) {
        sql += &format!("CREATE TABLE evil.{table} (LIKE evil.bait);");
    }
    // Last: from here on these names mean something else.
    for domain in ["regclass", "regprocedure", "regtype", "jsonb", "secret_info"] {
        sql += &format!("CREATE DOMAIN evil.{domain} AS pg_catalog.text;");
    }
    db.superuser().batch_execute(&sql).unwrap();
}

/// How often something of [`trap`] ran.
fn sprung(db: &Database<'_>) -> i64 {
    let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM evil.marks";
    db.superuser().query_one(sql, &[]).unwrap().get(0)
}
