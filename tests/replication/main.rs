//! Replication on real servers: what standbys show and refuse, how each server keeps its own root key, what a
//! failover takes over, and logical replication to a server of its own.

mod calls;
mod failover;
mod logical;
mod root_keys;
mod streaming;

use std::fs;

use postgres::{Client, Error};
use support::{Cluster, ClusterBuilder, Database, KEY_A, Prefix, RootKey};
use uuid::Uuid;

const PUT: &str = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";
const GET: &str = "SELECT meshhook_secrets.secret_get($1, $2)";
const OPERATOR: &str = "meshhook_secrets_kek_admin";

/// A primary that keeps the WAL that a standby may still ask for.
fn primary() -> ClusterBuilder<'static> {
    Cluster::builder().setting("wal_keep_size", "1GB")
}

/// A standby with the root key of most primaries.
fn standby_of(primary: &Cluster) -> ClusterBuilder<'_> {
    Cluster::builder()
        .standby_of(primary)
        .root_key(RootKey::File(KEY_A.into()))
        .setting("wal_retrieve_retry_interval", "100ms")
}

/// A project of a user with these secrets; the value of each is its name in small letters.
fn project(db: &Database<'_>, owner: Uuid, names: &[&str]) -> Uuid {
    let project = db.project(owner);
    let mut user = db.user(owner);
    for name in names {
        put(&mut user, project, name, &name.to_lowercase()).expect("the primary is open");
    }
    project
}

fn put(client: &mut Client, project: Uuid, name: &str, value: &str) -> Result<i32, Error> {
    Ok(client.query_one(PUT, &[&project, &name, &value])?.get(0))
}

fn get(client: &mut Client, project: Uuid, name: &str) -> Result<String, Error> {
    Ok(client.query_one(GET, &[&project, &name])?.get(0))
}

/// The one row that a query gives an operator of keys.
fn operate(db: &Database<'_>, call: &str) -> Result<(), Error> {
    db.member_of(OPERATOR).query(&format!("SELECT * FROM meshhook_secrets.{call}"), &[]).map(drop)
}

/// The code blocks of a language in docs/replication.md, in their order.
fn documented(language: &str) -> Vec<String> {
    let page = fs::read_to_string(Prefix::repository().join("docs/replication.md")).unwrap();
    let fence = format!("\n```{language}\n");
    let blocks = page.split(&fence).skip(1);
    blocks.map(|block| block.split("\n```\n").next().unwrap().to_owned()).collect()
}
