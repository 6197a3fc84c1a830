//! A call of every function of the schema, by a role that may call it.

use std::collections::BTreeSet;

use postgres::{Client, Error};
use support::{Database, Failure, expect_error};
use uuid::Uuid;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Reads only.
    Read,
    /// Changes keys or secrets.
    Write,
    /// Changes what each database has for itself: the audit log, the binding to the host.
    Keep,
}

use Does::{Keep, Read, Write};

const USER: &str = "";
const OPERATOR: &str = "meshhook_secrets_kek_admin";
const AUDITOR: &str = "whole_auditor";
const SUPERUSER: &str = "postgres";

/// `$1` is a project with the secrets TOKEN and GONE, which is deleted.
const CALLS: &[(&str, Does, &str)] = &[
    (USER, Write, "secret_put($1, 'NEW', 'x')"),
    (USER, Write, "secret_put($1, 'TOKEN', 'x')"),
    (USER, Write, "secret_put_bytes($1, 'NEW', 'x')"),
    (USER, Write, "secret_generate($1, 'NEW')"),
    (USER, Write, "secret_rollback($1, 'TOKEN', 1)"),
    (USER, Write, "secret_delete($1, 'TOKEN')"),
    (USER, Write, "secret_undelete($1, 'GONE')"),
    (USER, Write, "secret_purge($1, 'TOKEN', 'TOKEN')"),
    (USER, Write, "secret_expire($1, 'TOKEN', now())"),
    (USER, Read, "secret_get($1, 'TOKEN')"),
    (USER, Read, "secret_get_bytes($1, 'TOKEN')"),
    (USER, Read, "secret_get_many($1)"),
    (USER, Read, "secret_list($1)"),
    (USER, Read, "secret_describe($1, 'TOKEN')"),
    (USER, Read, "secret_versions($1, 'TOKEN')"),
    (USER, Read, "secret_due($1)"),
    (USER, Read, "project_seal_status($1)"),
    (USER, Read, "member_projects()"),
    (OPERATOR, Write, "kek_generate()"),
    (OPERATOR, Write, "kek_rotate()"),
    (OPERATOR, Write, "kek_rewrap()"),
    (OPERATOR, Write, "kek_disable(1)"),
    (OPERATOR, Write, "kek_enable(1)"),
    (OPERATOR, Write, "kek_mark_compromised(1)"),
    (OPERATOR, Write, "kek_destroy(1, '1')"),
    (OPERATOR, Write, "kek_cancel_destroy(1)"),
    (OPERATOR, Write, "kek_configure('90 days')"),
    (OPERATOR, Write, "dek_rotate($1)"),
    (OPERATOR, Write, "secret_reencrypt($1)"),
    (OPERATOR, Write, "seal($1)"),
    (OPERATOR, Write, "unseal($1)"),
    (OPERATOR, Keep, "root_key_rotate()"),
    (OPERATOR, Read, "unseal()"),
    (OPERATOR, Read, "seal_status()"),
    (OPERATOR, Read, "kek_status()"),
    (OPERATOR, Read, "kek_verify()"),
    (OPERATOR, Read, "kek_verify(deep => true)"),
    (OPERATOR, Read, "root_key_status()"),
    (OPERATOR, Read, "root_key_verify()"),
    (OPERATOR, Read, "library_version()"),
    (OPERATOR, Read, "health()"),
    (OPERATOR, Read, "metrics()"),
    (OPERATOR, Read, "doctor()"),
    (AUDITOR, Read, "audit_search()"),
    (AUDITOR, Read, "audit_verify()"),
    (AUDITOR, Keep, "audit_prune('2020-01-01')"),
    (
        SUPERUSER,
        Keep,
        "attach_projects('public.projects', member_function => 'public.user_project_ids()')",
    ),
    (SUPERUSER, Keep, "setup_supabase(users_may_reveal => true)"),
    (SUPERUSER, Keep, "audit_record_setup('setup', 'x')"),
    // For the audit writer; the refusal is PostgreSQL's own.
    (SUPERUSER, Keep, "audit_make_partition('1999-01-01')"),
];

/// Makes every call, and shows how it ended.
pub fn make_all(
    db: &Database<'_>,
    user: Uuid,
    project: Uuid,
    mut see: impl FnMut(&'static str, Does, Result<usize, Error>),
) {
    let named: BTreeSet<&str> =
        CALLS.iter().map(|(.., call)| call.split('(').next().unwrap()).collect();
    let all = "SELECT DISTINCT proname::text FROM pg_proc
        WHERE pronamespace = 'meshhook_secrets'::regnamespace AND prorettype <> 'trigger'::regtype";
    for row in db.superuser().query(all, &[]).unwrap() {
        let name: String = row.get(0);
        assert!(named.contains(name.as_str()), "add {name} to CALLS");
    }
    for (role, does, call) in CALLS {
        let mut client = match *role {
            USER => db.user(user),
            role => db.connect(role_name(role).as_str()),
        };
        let answer = make(&mut client, call, project);
        // Whatever the answer: the session goes on.
        client.simple_query("SELECT 1").unwrap_or_else(|error| panic!("{call}: {error:?}"));
        see(call, *does, answer);
    }
}

/// Roles that may log in are made once, on the primary.
pub fn make_roles(db: &Database<'_>) {
    db.member_of(OPERATOR);
    db.auditor();
}

fn role_name(role: &str) -> String {
    if role == OPERATOR { format!("member_of_{role}") } else { role.to_owned() }
}

fn make(client: &mut Client, call: &str, project: Uuid) -> Result<usize, Error> {
    let sql = format!("SELECT * FROM meshhook_secrets.{call}");
    let rows = match call.contains("$1") {
        true => client.query(&sql, &[&project]),
        false => client.query(&sql, &[]),
    };
    rows.map(|rows| rows.len())
}

/// 25006, and where to go instead.
pub fn refused(call: &str, answer: Result<usize, Error>) -> Failure {
    assert!(answer.is_err(), "{call} was not refused");
    let failure = expect_error(answer, "25006");
    if !call.starts_with("audit_make_partition") {
        assert!(!failure.detail.is_empty() && !failure.hint.is_empty(), "{call}: {failure:?}");
    }
    failure
}
