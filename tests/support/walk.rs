//! A walk over all functions, each called by whom it is for.

use std::collections::BTreeSet;

use postgres::Client;
use uuid::Uuid;

use crate::{Database, eventually};

/// Who calls what, in an order in which everything is possible. `$P` is a project of `User`, `$OLD` the
/// KEK that is active before `kek_rotate`. Functions that the database does not have are left out.
const CALLS: &[(By, &str)] = &[
    (By::User, "secret_put('$P', 'WALK', 'one', description => 'walked')"),
    (By::User, "secret_put_bytes('$P', 'WALK', 'two')"),
    (By::User, "secret_generate('$P', 'WALK')"),
    (By::User, "secret_rollback('$P', 'WALK', 1)"),
    (By::User, "secret_get('$P', 'WALK')"),
    (By::Service, "secret_get('$P', 'WALK', 2, 'run')"),
    (By::Service, "secret_get_bytes('$P', 'WALK')"),
    (By::Service, "secret_get_many('$P')"),
    (By::User, "secret_list('$P')"),
    (By::User, "secret_describe('$P', 'WALK')"),
    (By::User, "secret_versions('$P', 'WALK')"),
    (By::User, "secret_due()"),
    (By::User, "member_projects()"),
    (By::User, "project_seal_status('$P')"),
    (By::User, "secret_expire('$P', 'WALK', now() + interval '1 year')"),
    (By::User, "secret_delete('$P', 'WALK')"),
    (By::User, "secret_undelete('$P', 'WALK')"),
    (By::KekAdmin, "seal_status()"),
    (By::KekAdmin, "root_key_status()"),
    (By::KekAdmin, "root_key_verify()"),
    (By::KekAdmin, "root_key_rotate()"),
    (By::KekAdmin, "seal('$P')"),
    (By::KekAdmin, "unseal('$P')"),
    (By::KekAdmin, "dek_rotate('$P')"),
    (By::KekAdmin, "secret_reencrypt('$P')"),
    (By::KekAdmin, "kek_generate()"),
    (By::KekAdmin, "kek_rotate('walk')"),
    (By::KekAdmin, "kek_rewrap()"),
    (By::KekAdmin, "kek_status()"),
    (By::KekAdmin, "kek_verify(deep => true)"),
    (By::KekAdmin, "kek_disable($OLD)"),
    (By::KekAdmin, "kek_enable($OLD)"),
    (By::KekAdmin, "kek_mark_compromised($OLD)"),
    (By::KekAdmin, "kek_destroy($OLD, '$OLD')"),
    (By::KekAdmin, "kek_cancel_destroy($OLD)"),
    (By::KekAdmin, "kek_configure('90 days')"),
    (By::KekAdmin, "health()"),
    (By::Auditor, "library_version()"),
    (By::Auditor, "metrics()"),
    (By::Auditor, "doctor()"),
    (By::Auditor, "audit_search('$P')"),
    (By::Auditor, "audit_verify()"),
    (By::Auditor, "audit_prune(now() - interval '10 years')"),
    (By::User, "secret_purge('$P', 'WALK', 'WALK')"),
    (
        By::Superuser,
        "attach_projects('public.projects', member_function => 'public.user_project_ids()')",
    ),
    (By::Superuser, "setup_supabase(users_may_reveal => true)"),
];

/// Functions that only triggers, the audit writer and `attach_projects` call.
const INTERNAL: &[&str] = &[
    "refuse_direct_change",
    "remove_versions",
    "host_project_changed",
    "audit_make_partition",
    "audit_record_setup",
];

#[derive(Clone, Copy)]
enum By {
    User,
    Service,
    KekAdmin,
    Auditor,
    Superuser,
}

/// Calls every function that the database has, in a new project; none may fail.
pub fn walk(db: &Database<'_>) {
    let user = Uuid::new_v4();
    let project = db.project(user);
    let mut clients = [
        db.user(user),
        db.service(),
        db.member_of("meshhook_secrets_kek_admin"),
        db.auditor().client,
        db.superuser(),
    ];
    let keks = |client: &mut Client, what: &str, status: &str| -> i32 {
        let sql = format!("SELECT {what} FROM meshhook_secrets.kek_storage WHERE status = $1");
        client.query_one(&sql, &[&status]).expect("superuser may").get(0)
    };
    let mut old_kek = 0;
    let all =
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'meshhook_secrets'::regnamespace";
    let all = clients[By::Superuser as usize].query(all, &[]).expect("superuser may");
    let mut left: BTreeSet<String> = all.iter().map(|row| row.get(0)).collect();
    let there = left.clone();
    for (by, call) in CALLS {
        let name = call.split('(').next().expect("a name");
        if !there.contains(name) {
            continue;
        }
        left.remove(name);
        let superuser = &mut clients[By::Superuser as usize];
        if name == "kek_generate" {
            old_kek = keks(superuser, "max(kek_id)", "active");
        } else if name == "kek_status" {
            eventually("the rotation is finished", || {
                keks(superuser, "count(*)::int", "retiring") == 0
            });
        }
        let call = call.replace("$P", &project.to_string()).replace("$OLD", &old_kek.to_string());
        let statement = format!("SELECT * FROM meshhook_secrets.{call}");
        clients[*by as usize]
            .query(&statement, &[])
            .unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    left.retain(|name| !INTERNAL.contains(&name.as_str()));
    assert!(left.is_empty(), "not called, add them to tests/support/walk.rs: {left:?}");
}
