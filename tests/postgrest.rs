//! The statements that PostgREST sends, over a connection like its own: who asks and for what in one
//! `set_config` statement, the request's whole body as one JSON parameter, the answer made by
//! PostgreSQL as JSON. tests/web goes through a real gateway; here is what no gateway's quirks hide.

use postgres::{Client, Error, IsolationLevel};
use serde_json::{Value, json};
use support::{Cluster, Database, expect_error};
use uuid::Uuid;

/// What PostgREST makes of a call.
#[derive(Debug)]
struct Answer {
    body: Value,
    headers: Option<Value>,
}

/// A pool's connection: it serves one request after the other, for anybody.
struct Api {
    pool: Client,
    schema: Client,
}

impl Api {
    fn of(db: &Database<'_>) -> Self {
        Self { pool: db.connect("authenticator"), schema: db.superuser() }
    }

    fn post(&mut self, claims: &Value, function: &str, body: Value) -> Result<Answer, Error> {
        self.request("POST", claims, function, body)
    }

    /// `GET` runs in a read-only transaction.
    fn request(
        &mut self,
        method: &str,
        claims: &Value,
        function: &str,
        body: Value,
    ) -> Result<Answer, Error> {
        self.request_after("", method, claims, function, body)
    }

    /// `host` is what the application's own code does first, its pre-request function for example.
    fn request_after(
        &mut self,
        host: &str,
        method: &str,
        claims: &Value,
        function: &str,
        body: Value,
    ) -> Result<Answer, Error> {
        let statement = self.statement(function, &body);
        let mut transaction = self
            .pool
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .read_only(method == "GET")
            .start()?;
        let role = claims["role"].as_str().expect("claims have a role");
        let path = format!("/rpc/{function}");
        transaction.query(
            "SELECT set_config('search_path', '\"meshhook_secrets\", \"public\"', true),
                    set_config('role', $1, true),
                    set_config('request.jwt.claims', $2, true),
                    set_config('request.method', $3, true),
                    set_config('request.path', $4, true),
                    set_config('request.headers', $5, true),
                    set_config('request.cookies', '{}', true)",
            &[&role, &claims.to_string(), &method, &path, &r#"{"x-request-id":"r-17"}"#],
        )?;
        transaction.batch_execute(host)?;
        let row = transaction.query_one(&statement, &[&body])?;
        let headers: Option<String> = row.get("response_headers");
        let answer = Answer {
            body: row.get("body"),
            headers: headers.map(|text| serde_json::from_str(&text).expect("JSON")),
        };
        transaction.commit()?;
        Ok(answer)
    }

    /// As PostgREST builds it from its schema cache: arguments by name, with the types of the
    /// function's own; a scalar or one composite is one value, a set is an array.
    fn statement(&mut self, function: &str, body: &Value) -> String {
        let row = self
            .schema
            .query_one(
                "SELECT p.proretset, t.typtype = 'c' OR p.prorettype = 'record'::regtype,
                        (SELECT coalesce(array_agg(a.name || ' ' || format_type(a.type, NULL)), '{}')
                           FROM unnest(p.proargnames, coalesce(p.proallargtypes, p.proargtypes::oid[]),
                                       coalesce(p.proargmodes, array_fill('i'::\"char\", ARRAY[p.pronargs])))
                             AS a (name, type, mode)
                          WHERE a.mode = 'i' AND a.name = ANY ($2))
                   FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
                  WHERE p.pronamespace = 'meshhook_secrets'::regnamespace AND p.proname = $1",
                &[&function, &names(body)],
            )
            .expect("there is such a function");
        let (set, composite): (bool, bool) = (row.get(0), row.get(1));
        let typed: Vec<String> = row.get(2);
        let columns = |each: &dyn Fn(&str) -> String| {
            typed
                .iter()
                .map(|argument| each(argument.split(' ').next().expect("a name")))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (arguments, from) = match typed.is_empty() {
            true => (String::new(), String::from("(SELECT $1::json AS json_data) pgrst_payload")),
            false => (
                columns(&|name| format!("\"{name}\" := pgrst_args.\"{name}\"")),
                format!(
                    "(SELECT $1::json AS json_data) pgrst_payload,
                     LATERAL (SELECT {} FROM json_to_record(pgrst_payload.json_data) AS _({}) LIMIT 1) pgrst_args",
                    columns(&|name| format!("\"{name}\"")),
                    typed.join(", "),
                ),
            ),
        };
        let call = format!("\"meshhook_secrets\".\"{function}\"({arguments})");
        let (source, body) = match (composite, set) {
            (true, true) => (format!("{call} pgrst_call"), "coalesce(json_agg(t), '[]')"),
            (true, false) => (format!("{call} pgrst_call"), "coalesce(json_agg(t)->0, 'null')"),
            _ => (
                format!("(SELECT {call} AS pgrst_scalar) pgrst_call"),
                "coalesce(json_agg(t.pgrst_scalar)->0, 'null')",
            ),
        };
        format!(
            "WITH pgrst_source AS (SELECT pgrst_call.* FROM {from}, LATERAL {source})
             SELECT pg_catalog.count(t) AS page_total, {body}::json AS body,
                    nullif(current_setting('response.headers', true), '') AS response_headers
               FROM (SELECT * FROM pgrst_source) t",
        )
    }
}

fn names(body: &Value) -> Vec<String> {
    body.as_object().expect("a body is an object").keys().cloned().collect()
}

fn user(id: Uuid) -> Value {
    json!({"role": "authenticated", "sub": id})
}

fn service() -> Value {
    json!({"role": "service_role"})
}

fn no_store() -> Value {
    json!([{"Cache-Control": "no-store"}])
}

#[test]
fn a_secret_lives_its_life() {
    let db = Cluster::shared().database();
    let (owner, mut api) = (Uuid::new_v4(), Api::of(&db));
    let (project, alice) = (db.project(owner), user(owner));

    let put = json!({"project_id": project, "name": "KEY", "value": "päss \"w\\ord\"\n",
        "metadata": {"env": ["prod"]}, "expires_at": "2100-01-02T03:04:05+01:00"});
    let put = api.post(&alice, "secret_put", put).unwrap().body;
    assert_eq!((&put["name"], &put["version"]), (&json!("KEY"), &json!(1)));
    assert_eq!(put["expires_at"], "2100-01-02T02:04:05+00:00");

    let list = api.post(&alice, "secret_list", json!({"project_id": project})).unwrap();
    assert_eq!(list.body[0]["metadata"], json!({"env": ["prod"]}));
    assert_eq!(list.body[0]["deleted_at"], Value::Null);
    assert_eq!(list.headers, None);

    let of = |more: Value| {
        let mut body = json!({"project_id": project, "name": "KEY"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for claims in [&alice, &service()] {
        let get = api.post(claims, "secret_get", of(json!({"purpose": "run"}))).unwrap();
        assert_eq!(get.body, "päss \"w\\ord\"\n");
        assert_eq!(get.headers, Some(no_store()));
    }
    let bytes = api.post(&alice, "secret_get_bytes", of(json!({}))).unwrap();
    assert!(bytes.body.as_str().unwrap().starts_with("\\x70c3a4"), "{bytes:?}");
    assert_eq!(bytes.headers, Some(no_store()));

    let generated =
        json!({"charset": "hex", "length": 8, "cas": 1, "previous_valid_for": "1 hour"});
    let generated = api.post(&alice, "secret_generate", of(generated)).unwrap();
    assert_eq!((&generated.body["version"], generated.headers), (&json!(2), None));
    let many = json!({"project_id": project, "names": ["KEY", "NONE"], "purpose": "run"});
    let many = api.post(&alice, "secret_get_many", many).unwrap();
    assert_eq!(many.body[0]["value"].as_str().unwrap().len(), 8);
    assert_eq!(
        many.body[1],
        json!({"name": "NONE", "value": null, "version": null, "status": "not_found"})
    );
    assert_eq!(many.headers, Some(no_store()));

    let rollback = api.post(&alice, "secret_rollback", of(json!({"version": 1}))).unwrap();
    assert_eq!(rollback.body["version"], 3);
    let versions = api.post(&alice, "secret_versions", of(json!({}))).unwrap();
    assert_eq!(versions.body.as_array().unwrap().len(), 3);
    let deleted = api.post(&alice, "secret_delete", of(json!({}))).unwrap();
    assert_eq!(deleted.body["status"], "deleted");
    api.post(&alice, "secret_undelete", of(json!({}))).unwrap();
    let purged = api.post(&alice, "secret_purge", of(json!({"confirm": "KEY"}))).unwrap();
    assert!(purged.body.is_null() || purged.body == "", "{purged:?}");
    let status = json!({"project_id": project});
    let status = api.post(&alice, "project_seal_status", status).unwrap();
    assert_eq!(status.body, json!([{"sealed": false, "cause": null, "remedy": null}]));
}

#[test]
fn each_request_is_its_own_users() {
    let db = Cluster::shared().database();
    let (owner, stranger, mut api) = (Uuid::new_v4(), Uuid::new_v4(), Api::of(&db));
    let project = db.project(owner);
    let key = json!({"project_id": project, "name": "KEY"});
    let put = json!({"project_id": project, "name": "KEY", "value": "hush"});
    api.post(&user(owner), "secret_put", put.clone()).unwrap();

    // One connection, one kept plan, one user after the other.
    for _ in 0..3 {
        assert_eq!(api.post(&user(owner), "secret_get", key.clone()).unwrap().body, "hush");
        let there = expect_error(api.post(&user(stranger), "secret_get", key.clone()), "42501");
        let nowhere = json!({"project_id": Uuid::new_v4(), "name": "KEY"});
        let nowhere = expect_error(api.post(&user(stranger), "secret_get", nowhere), "42501");
        assert_eq!((there.message, there.detail), (nowhere.message, nowhere.detail));
        expect_error(api.post(&json!({"role": "anon"}), "secret_get", key.clone()), "42501");
        expect_error(api.post(&user(stranger), "secret_put", put.clone()), "42501");
        assert_eq!(api.post(&service(), "secret_get", key.clone()).unwrap().body, "hush");
    }

    let told = "SELECT request_id FROM meshhook_secrets.audit_search(
        $1, action => 'secret_get', outcome => 'denied', actor => $2)";
    let told = db.superuser().query_one(told, &[&project, &stranger.to_string()]).unwrap();
    assert_eq!(told.get::<_, String>("request_id"), "r-17");
}

#[test]
fn errors_are_what_the_table_says_and_change_nothing() {
    let db = Cluster::shared().database();
    let (owner, mut api) = (Uuid::new_v4(), Api::of(&db));
    let (project, alice) = (db.project(owner), user(owner));
    let mut refused = |function: &str, body: Value, sqlstate: &str| {
        let failure = expect_error(api.post(&alice, function, body), sqlstate);
        assert!(!failure.message.contains('\n') && failure.message.len() < 60, "{failure:?}");
        assert!(!failure.hint.is_empty(), "{failure:?}");
    };
    let key = |name: &str| json!({"project_id": project, "name": name});
    let put =
        |name: &str, value: &str| json!({"project_id": project, "name": name, "value": value});

    refused("secret_get", key("NONE"), "PT404");
    refused("secret_get", json!({"project_id": null, "name": "KEY"}), "22004");
    refused("secret_put", json!({"project_id": project, "name": "KEY", "value": null}), "22004");
    refused("secret_put", put("1KEY", "x"), "22023");
    refused("secret_put", put("KEY", &"x".repeat(65_537)), "PT413");
    let mut cas = put("KEY", "x");
    cas["cas"] = json!(7);
    refused("secret_put", cas, "PT409");
    refused("secret_list", json!({"project_id": project, "page_size": 0}), "22023");
    refused("secret_list", json!({"project_id": project, "page_size": null}), "22004");
    let none: i64 = db
        .superuser()
        .query_one("SELECT count(*) FROM meshhook_secrets.project_secrets", &[])
        .unwrap()
        .get(0);
    assert_eq!(none, 0);

    // Who may create the project's first secret meets the project itself.
    let nowhere = json!({"project_id": Uuid::new_v4(), "name": "KEY", "value": "x"});
    expect_error(Api::of(&db).post(&service(), "secret_put", nowhere), "23503");
}

#[test]
fn a_get_request_is_read_only() {
    let db = Cluster::shared().database();
    let (owner, mut api) = (Uuid::new_v4(), Api::of(&db));
    let (project, alice) = (db.project(owner), user(owner));
    let put = json!({"project_id": project, "name": "KEY", "value": "hush"});
    expect_error(api.request("GET", &alice, "secret_put", put.clone()), "25006");
    api.post(&alice, "secret_put", put).unwrap();

    // A cache on the way could keep this one.
    let key = json!({"project_id": project, "name": "KEY"});
    let get = api.request("GET", &alice, "secret_get", key.clone()).unwrap();
    assert_eq!((get.body, get.headers), (json!("hush"), Some(no_store())));
    expect_error(api.request("GET", &alice, "secret_delete", key), "25006");
}

#[test]
fn headers_of_the_host_stay() {
    let db = Cluster::shared().database();
    let (owner, mut api) = (Uuid::new_v4(), Api::of(&db));
    let (project, alice) = (db.project(owner), user(owner));
    let put = json!({"project_id": project, "name": "KEY", "value": "hush"});
    api.post(&alice, "secret_put", put).unwrap();
    let key = json!({"project_id": project, "name": "KEY"});

    let mut headers = |present: &str| {
        let host = format!("SET LOCAL response.headers = '{present}'");
        api.request_after(&host, "POST", &alice, "secret_get", key.clone())
            .unwrap()
            .headers
            .unwrap()
    };
    assert_eq!(headers(""), no_store());
    assert_eq!(headers("[]"), no_store());
    assert_eq!(headers(" [ ] "), no_store());
    assert_eq!(
        headers(r#"[{"X-Host": "a]"}] "#),
        json!([{"X-Host": "a]"}, {"Cache-Control": "no-store"}])
    );
    assert_eq!(headers(r#"[{"Cache-Control": "no-store"}]"#), no_store());
    assert_eq!(headers(r#"{"no": "array"}"#), json!({"no": "array"}), "PostgREST will refuse it");

    // Only in that transaction, and only for PostgREST.
    let setting = "SELECT coalesce(current_setting('response.headers', true), '')";
    assert_eq!(api.pool.query_one(setting, &[]).unwrap().get::<_, String>(0), "");
    let mut plain = db.user(owner);
    let get = "SELECT meshhook_secrets.secret_get($1, 'KEY'), coalesce(current_setting('response.headers', true), '')";
    assert_eq!(plain.query_one(get, &[&project]).unwrap().get::<_, String>(1), "");
}
