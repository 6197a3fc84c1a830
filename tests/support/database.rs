//! A database of a server, made for one test.

use std::sync::atomic::{AtomicU32, Ordering};

use postgres::Client;
use serde_json::json;
use uuid::Uuid;

use crate::{Cluster, world};

/// A database that is dropped, with everybody in it, when the test is done.
#[derive(Debug)]
pub struct Database<'c> {
    cluster: &'c Cluster,
    name: String,
    /// It is there by replication, and goes when the original does.
    is_copy: bool,
}

impl<'c> Database<'c> {
    pub(crate) fn empty(cluster: &'c Cluster) -> Self {
        world::create_roles(cluster);
        Self::copy(cluster, "template0")
    }

    pub(crate) fn with_host(cluster: &'c Cluster) -> Self {
        Self::copy(cluster, world::template(cluster))
    }

    fn copy(cluster: &'c Cluster, template: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        cluster
            .connect("postgres", "postgres")
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .expect("a new name");
        Self { cluster, name, is_copy: false }
    }

    /// What replication makes of it on another server.
    pub fn on<'o>(&self, cluster: &'o Cluster) -> Database<'o> {
        Database { cluster, name: self.name.clone(), is_copy: true }
    }

    pub(crate) fn named(cluster: &'c Cluster, name: &str) -> Self {
        Self { cluster, name: name.to_owned(), is_copy: false }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server it is in.
    pub fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    // --- who connects --------------------------------------------------------------

    /// A superuser.
    pub fn superuser(&self) -> Client {
        self.connect("postgres")
    }

    /// Any role that may log in.
    pub fn connect(&self, role: &str) -> Client {
        self.cluster.connect(&self.name, role)
    }

    /// A signed-in user of the application, as PostgREST lets one in.
    pub fn user(&self, id: Uuid) -> Client {
        self.request("authenticated", json!({"role": "authenticated", "sub": id}))
    }

    /// The application's server side.
    pub fn service(&self) -> Client {
        self.request("service_role", json!({"role": "service_role"}))
    }

    /// A visitor who has not signed in.
    pub fn anon(&self) -> Client {
        self.request("anon", json!({"role": "anon"}))
    }

    fn request(&self, role: &str, claims: serde_json::Value) -> Client {
        let mut client = self.connect("authenticator");
        client
            .execute(
                "SELECT set_config('request.jwt.claims', $1, false), set_config('role', $2, false)",
                &[&claims.to_string(), &role],
            )
            .expect("authenticator may become the roles of the API");
        client
    }

    // --- what is in the host application ----------------------------------------------

    /// A new project of this user.
    pub fn project(&self, owner: Uuid) -> Uuid {
        self.superuser()
            .query_one(
                "INSERT INTO public.projects (owner, name) VALUES ($1, 'test') RETURNING id",
                &[&owner],
            )
            .expect("host application is there")
            .get(0)
    }

    /// Lets another user into a project.
    pub fn add_member(&self, project: Uuid, user: Uuid) {
        self.superuser()
            .execute("INSERT INTO public.project_members VALUES ($1, $2)", &[&project, &user])
            .expect("host application is there");
    }

    /// Deletes a project.
    pub fn delete_project(&self, project: Uuid) {
        self.superuser()
            .execute("DELETE FROM public.projects WHERE id = $1", &[&project])
            .expect("host application is there");
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if self.is_copy {
            return;
        }
        if let Ok(mut client) = self.cluster.try_connect("postgres", "postgres") {
            // A synchronous standby may be gone for good.
            let _ = client.batch_execute("SET synchronous_commit = local");
            let _ = client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}
