//! The server starts with the extension, the extension comes and goes, and the
//! PostgreSQL of the machine is left alone.

use std::fs::{canonicalize, metadata};

use postgres::Client;
use support::{Cluster, Prefix};
use uuid::Uuid;

#[test]
fn server_starts_with_the_extension_preloaded() {
    let preloaded: String = Cluster::shared()
        .connect("postgres", "postgres")
        .query_one("SHOW shared_preload_libraries", &[])
        .unwrap()
        .get(0);
    assert!(preloaded.split(", ").any(|library| library == "meshhook_secrets"), "{preloaded}");
}

#[test]
fn extension_is_created_and_dropped() {
    let db = Cluster::shared().empty_database();
    let mut client = db.superuser();
    let mut functions = || -> i64 {
        let count = "SELECT count(*) FROM pg_proc
            JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'meshhook_secrets'";
        client.query_one(count, &[]).unwrap().get(0)
    };
    assert_eq!(functions(), 0);
    db.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    assert!(functions() > 0);
    db.superuser().batch_execute("DROP EXTENSION meshhook_secrets").unwrap();
    assert_eq!(functions(), 0);
}

#[test]
fn host_application_runs_on_it() {
    let db = Cluster::shared().database();
    let (alice, bob, eve) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let project = db.project(alice);
    db.add_member(project, bob);

    let sees = |mut client: Client| -> i64 {
        client.query_one("SELECT count(*) FROM public.projects", &[]).unwrap().get(0)
    };
    assert_eq!(sees(db.user(alice)), 1);
    assert_eq!(sees(db.user(bob)), 1);
    assert_eq!(sees(db.user(eve)), 0);
    assert_eq!(sees(db.service()), 1);
    assert_eq!(sees(db.anon()), 0);
}

#[test]
fn system_postgres_is_only_read() {
    let db = Cluster::shared().empty_database();
    db.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();

    // The server reads our files from the private installation, where they are real files.
    let prefix = Prefix::get();
    let control = prefix.extensions().join("meshhook_secrets.control");
    for file in [prefix.library(), control] {
        assert!(metadata(&file).unwrap().is_file());
        assert_eq!(
            canonicalize(&file).unwrap(),
            canonicalize(file.parent().unwrap()).unwrap().join(file.file_name().unwrap())
        );
    }
    let mut client = db.superuser();
    let setting = "SELECT setting FROM pg_config WHERE name = $1";
    for (name, here) in [("PKGLIBDIR", prefix.modules()), ("SHAREDIR", prefix.extensions())] {
        let path: String = client.query_one(setting, &[&name]).unwrap().get(0);
        assert!(here.starts_with(path));
    }

    // The system's directories, to which the others are links, are as they were.
    let started = metadata(Cluster::shared().root_key_path()).unwrap().modified().unwrap();
    for link in [prefix.modules().join("plpgsql.so"), prefix.extensions().join("plpgsql.control")] {
        let real = canonicalize(&link).unwrap();
        assert_ne!(real, link);
        assert!(metadata(real.parent().unwrap()).unwrap().modified().unwrap() < started);
    }
}
