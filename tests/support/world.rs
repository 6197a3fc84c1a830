//! The host application around the extension: a MeshHook in miniature, with the
//! roles and defaults of a Supabase project.

use crate::{Cluster, eventually};

const ROLES: &str = include_str!("world/roles.sql");
const HOST: &str = include_str!("world/host.sql");
const ATTACH: &str = include_str!("world/attach.sql");

/// Makes the roles of the API, once per server. A restored dump needs them too; with a server's files
/// they came along.
pub fn create_roles(cluster: &Cluster) {
    cluster.roles.get_or_init(|| {
        let mut admin = cluster.connect("postgres", "postgres");
        let one = "SELECT FROM pg_roles WHERE rolname = 'authenticator'";
        if admin.query_opt(one, &[]).expect("superuser may").is_none() {
            admin.batch_execute(ROLES).expect("roles.sql is right");
        }
    });
}

/// The database that others are copied from: quicker than building each.
pub fn template(cluster: &Cluster) -> &'static str {
    cluster.template.get_or_init(|| {
        create_roles(cluster);
        let mut admin = cluster.connect("postgres", "postgres");
        for statement in ["DROP DATABASE IF EXISTS host", "CREATE DATABASE host"] {
            admin.batch_execute(statement).expect("superuser may");
        }
        {
            let mut host = cluster.connect("host", "postgres");
            for script in [HOST, &cluster.extension, ATTACH] {
                host.batch_execute(script).unwrap_or_else(|error| panic!("{error:?}\nin {script}"));
            }
        }
        // A database can be copied only while nobody, not even our worker, is in it.
        admin.batch_execute("ALTER DATABASE host ALLOW_CONNECTIONS false").expect("superuser may");
        eventually("everybody left the template database", || {
            let leave =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'host'";
            admin.query(leave, &[]).expect("superuser may").is_empty()
        });
        "host"
    })
}
