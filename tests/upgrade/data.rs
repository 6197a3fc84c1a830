//! Data of every kind, made by an old version.

use meshhook_secrets_core::audit::{Outcome, Record};
use support::{Database, eventually, expect_error};
use uuid::Uuid;

/// Secrets in all states, KEKs in several, a rotation that does not come to its end, two months of the
/// audit log, a binding, a schedule.
pub struct World<'d> {
    db: &'d Database<'d>,
    alice: Uuid,
    project: Uuid,
    sealed: Uuid,
    others: Vec<Uuid>,
}

impl<'d> World<'d> {
    pub fn new(db: &'d Database<'d>) -> Self {
        let alice = Uuid::new_v4();
        let [project, sealed] = [(); 2].map(|()| db.project(alice));
        let others = (0..10).map(|_| db.project(alice)).collect();
        let world = World { db, alice, project, sealed, others };
        let mut user = db.user(alice);
        for call in [
            "secret_put($1, 'TOKEN', 'one', description => 'kept', metadata => '{\"a\": [1]}')",
            "secret_put($1, 'TOKEN', 'two', previous_valid_for => '1 hour')",
            "secret_put($1, 'EXPIRED', 'gone')",
            "secret_expire($1, 'EXPIRED', now())",
            "secret_put($1, 'DELETED', 'back')",
            "secret_delete($1, 'DELETED')",
            "secret_put($1, 'PURGED', 'never')",
            "secret_purge($1, 'PURGED', 'PURGED')",
            "secret_put_bytes($1, 'BYTES', '\\x00ff')",
        ] {
            user.query(&format!("SELECT meshhook_secrets.{call}"), &[&project]).unwrap();
        }
        for project in world.others.iter().chain([&sealed]) {
            let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'other')";
            user.query(put, &[project]).unwrap();
        }
        world.record_of_last_month();
        // KEK 1 is left by a finished rotation, and to be destroyed in a week; 2 is pending; the rotation
        // to 3 is in the middle.
        let mut operator = db.member_of("meshhook_secrets_kek_admin");
        operator.batch_execute("SELECT meshhook_secrets.kek_rotate('first')").unwrap();
        eventually("by hand", || {
            let rewrap = "SELECT meshhook_secrets.kek_rewrap(1000)";
            operator.batch_execute(rewrap).unwrap();
            world.keks().contains("1 retired")
        });
        for call in ["seal($1)", "dek_rotate($1)"] {
            let about = if call.starts_with("seal") { sealed } else { project };
            operator.query(&format!("SELECT meshhook_secrets.{call}"), &[&about]).unwrap();
        }
        for call in [
            "kek_destroy(1, '1')",
            "kek_rotate('second')",
            "kek_generate()",
            "kek_configure('90 days')",
            // The worker has done one, or pauses since the first rotation.
            "kek_rewrap(1)",
        ] {
            operator.query(&format!("SELECT meshhook_secrets.{call}"), &[]).unwrap();
        }
        assert_eq!(world.keks(), "1 destroy_scheduled, 2 retiring, 3 active, 4 pending");
        let keks = "SELECT count(DISTINCT kek_id) FROM meshhook_secrets.data_keys";
        assert_eq!(db.superuser().query_one(keks, &[]).unwrap().get::<_, i64>(0), 2);
        world.quiet();
        world
    }

    /// All of it is there, and as it was, for everybody.
    pub fn is_whole(&self) {
        self.is_whole_in(self.db);
    }

    /// As [`World::is_whole`], in a restored database.
    pub fn is_whole_in(&self, db: &Database<'_>) {
        let project = self.project;
        let mut user = db.user(self.alice);
        let mut get = |project: Uuid, name: &str, version: Option<i32>| {
            let get = "SELECT meshhook_secrets.secret_get($1, $2, $3)";
            user.query_one(get, &[&project, &name, &version]).map(|row| row.get::<_, String>(0))
        };
        assert_eq!(get(project, "TOKEN", None).unwrap(), "two");
        assert_eq!(get(project, "TOKEN", Some(1)).unwrap(), "one");
        for other in &self.others {
            assert_eq!(get(*other, "TOKEN", None).unwrap(), "other");
        }
        expect_error(get(project, "EXPIRED", None), "PT410").message("expired");
        expect_error(get(project, "DELETED", None), "PT410").message("deleted");
        expect_error(get(project, "PURGED", None), "PT404");
        expect_error(get(self.sealed, "TOKEN", None), "PT503");
        let stranger = "SELECT meshhook_secrets.secret_list($1)";
        expect_error(db.user(Uuid::new_v4()).query(stranger, &[&project]), "42501");
        expect_error(db.anon().query(stranger, &[&project]), "42501");
        let described = "SELECT description = 'kept' AND metadata = '{\"a\": [1]}'
            FROM meshhook_secrets.secret_describe($1, 'TOKEN')";
        assert!(user.query_one(described, &[&project]).unwrap().get::<_, bool>(0));
        let bytes = "SELECT meshhook_secrets.secret_get_bytes($1, 'BYTES')";
        assert_eq!(user.query_one(bytes, &[&project]).unwrap().get::<_, &[u8]>(0), [0, 255]);
        let months = "SELECT count(DISTINCT tableoid) FROM meshhook_secrets.audit_log";
        assert_eq!(db.superuser().query_one(months, &[]).unwrap().get::<_, i64>(0), 2);
        db.auditor().assert_good();
    }

    /// The rows of all tables but the audit log's, which goes on.
    pub fn rows(&self) -> Vec<String> {
        let tables = "SELECT c.relname::text FROM pg_class c
            WHERE c.relnamespace = 'meshhook_secrets'::regnamespace AND c.relkind = 'r'
            AND c.relname NOT LIKE 'audit%' ORDER BY 1";
        let mut superuser = self.db.superuser();
        let mut rows = Vec::new();
        for table in superuser.query(tables, &[]).unwrap() {
            let table: &str = table.get(0);
            let all = format!("SELECT t::text FROM meshhook_secrets.{table} t ORDER BY 1");
            let found = superuser.query(&all, &[]).unwrap();
            assert!(!found.is_empty(), "{table}");
            rows.extend(found.iter().map(|row| format!("{table} {}", row.get::<_, &str>(0))));
        }
        rows
    }

    fn keks(&self) -> String {
        let keks = "SELECT string_agg(kek_id || ' ' || status, ', ' ORDER BY kek_id)
            FROM meshhook_secrets.kek_storage";
        self.db.superuser().query_one(keks, &[]).unwrap().get(0)
    }

    /// As if it had waited for its seal since then.
    fn record_of_last_month(&self) {
        let mut superuser = self.db.superuser();
        let last_month =
            "SELECT (extract(epoch FROM date_trunc('month', now(), 'UTC') - interval '1 day')
            - extract(epoch FROM '2000-01-01 00:00 UTC'::timestamptz))::bigint * 1000000";
        let time: i64 = superuser.query_one(last_month, &[]).unwrap().get(0);
        let mut record = Record::new(time, "secret_get", Outcome::Ok, "authenticator");
        record.project_id = Some(*self.project.as_bytes());
        superuser.batch_execute("SET session_replication_role = replica").unwrap();
        let insert = "INSERT INTO meshhook_secrets.audit_pending (record) VALUES ($1)";
        superuser.execute(insert, &[&record.encode()]).unwrap();
    }

    /// Waits until all records are sealed.
    fn quiet(&self) {
        let mut superuser = self.db.superuser();
        let pending = "SELECT count(*) FROM meshhook_secrets.audit_pending";
        eventually("all is sealed", || {
            superuser.query_one(pending, &[]).unwrap().get::<_, i64>(0) == 0
        });
    }
}
