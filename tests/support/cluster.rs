//! A PostgreSQL server under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, OnceLock};

use postgres::{Client, Config, NoTls};

use crate::{
    ClusterBuilder, Database, Prefix, config, eventually, process, root_key, run, scratch, traces,
};

/// How a server is told to stop.
#[derive(Clone, Copy, Debug)]
pub enum Shutdown {
    /// Sends clients away, writes a checkpoint.
    Fast,
    /// Just ends; the next start recovers.
    Immediate,
}

/// A server with a data directory, a socket and a root key file of its own.
/// Stopped and removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    prefix: &'static Prefix,
    dir: PathBuf,
    pub(crate) extension: String,
    environment: Vec<(String, String)>,
    pub(crate) roles: OnceLock<()>,
    pub(crate) template: OnceLock<&'static str>,
}

impl Cluster {
    /// The server that tests share. Leave its settings, key and process alone.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Cluster> = LazyLock::new(|| Cluster::builder().start());
        &SHARED
    }

    /// A server for one test alone.
    pub fn builder<'p>() -> ClusterBuilder<'p> {
        ClusterBuilder::new()
    }

    pub(crate) fn new(
        prefix: &'static Prefix,
        dir: PathBuf,
        extension: String,
        environment: Vec<(String, String)>,
    ) -> Self {
        Self {
            prefix,
            dir,
            extension,
            environment,
            roles: OnceLock::new(),
            template: OnceLock::new(),
        }
    }

    // --- databases and connections ---------------------------------------------

    /// A new database with the extension and the host application attached to it.
    pub fn database(&self) -> Database<'_> {
        Database::with_host(self)
    }

    /// A new empty database, for `CREATE EXTENSION` or a restore.
    pub fn empty_database(&self) -> Database<'_> {
        Database::empty(self)
    }

    /// A database that came with the files of a backup.
    pub fn restored_database(&self, name: &str) -> Database<'_> {
        Database::named(self, name)
    }

    /// Connects; statements time out after a minute.
    pub fn connect(&self, database: &str, user: &str) -> Client {
        self.try_connect(database, user)
            .unwrap_or_else(|error| panic!("{user}@{database}: {error}\n{}", self.log_tail()))
    }

    /// Connects, if the server lets us.
    pub fn try_connect(&self, database: &str, user: &str) -> Result<Client, postgres::Error> {
        Config::new()
            .host_path(&self.dir)
            .dbname(database)
            .user(user)
            .options("-c statement_timeout=60s")
            .connect(NoTls)
    }

    /// A PostgreSQL program (`psql`, `pg_dump`…) that connects here as superuser.
    /// It starts in [`Cluster::dir`], where it may write.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.prefix.command(program, &self.dir);
        command.env("PGHOST", &self.dir).env("PGUSER", "postgres");
        command
    }

    // --- life --------------------------------------------------------------------

    /// Starts the stopped server.
    pub fn start(&self) {
        self.try_start().unwrap_or_else(|log| panic!("server does not start:\n{log}"));
    }

    /// Starts the stopped server, or returns what it and `pg_ctl` said.
    pub fn try_start(&self) -> Result<(), String> {
        let mut start = self.pg_ctl("start");
        start.arg("-l").arg(self.dir.join("log")).envs(self.environment.iter().cloned());
        // Another program in the server's place, which runs it under a debugger or the like.
        if let Some(program) = std::env::var_os("TEST_POSTGRES") {
            start.arg("-p").arg(program);
        }
        let output = start.output().expect("pg_ctl is there");
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned() + &self.log_tail())
    }

    /// Stops the server.
    pub fn stop(&self, how: Shutdown) {
        let mode = match how {
            Shutdown::Fast => "fast",
            Shutdown::Immediate => "immediate",
        };
        run(self.pg_ctl("stop").args(["-m", mode]));
    }

    /// Stops and starts the server; connections end.
    pub fn restart(&self) {
        self.stop(Shutdown::Fast);
        self.start();
    }

    /// Has the server read its settings and root key again. Takes effect a moment
    /// later: wait with [`crate::eventually`].
    pub fn reload(&self) {
        run(&mut self.pg_ctl("reload"));
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        run(&mut self.pg_ctl("promote"));
    }

    /// Waits until this standby, or standby of a standby, shows what the primary shows now.
    pub fn catch_up(&self, primary: &Cluster) {
        // What is committed is flushed.
        let now = "SELECT pg_catalog.pg_current_wal_flush_lsn()::text";
        let mut primary = primary.connect("postgres", "postgres");
        let now: String = primary.query_one(now, &[]).expect("it is the primary").get(0);
        let mut standby = self.connect("postgres", "postgres");
        let there = "SELECT pg_catalog.pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        eventually("the standby has caught up", || {
            standby.query_one(there, &[&now]).expect("it is a standby").get(0)
        });
    }

    /// Kills all processes of the server at once, as a power failure does.
    pub fn kill(&self) {
        let postmaster = self.postmaster_pid();
        let processes: Vec<i32> =
            std::iter::once(postmaster).chain(process::children(postmaster)).collect();
        // One that is gone by itself meanwhile is no failure.
        let list: Vec<String> = processes.iter().map(i32::to_string).collect();
        let mut kill = Command::new("sh");
        let _ = kill.arg("-c").arg(format!("kill -s KILL {}", list.join(" "))).output();
        eventually("all processes are gone", || {
            processes.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        });
    }

    /// Makes this former primary, which must not run, a standby of the one that was promoted.
    pub fn rewind(&self, source: &Cluster) {
        let connection =
            format!("host={} user=postgres dbname=postgres", config::text(&source.dir));
        // Until its first checkpoint, pg_rewind of PostgreSQL 15 takes the source for what it was before.
        let mut superuser = source.connect("postgres", "postgres");
        superuser.batch_execute("CHECKPOINT").expect("superuser may");
        let mut rewind = self.command("pg_rewind");
        rewind.arg("--target-pgdata").arg(self.data_dir()).args(["--source-server", &connection]);
        run(rewind.arg("--write-recovery-conf"));
        // The source's configuration came along.
        let key = config::text(&self.root_key_path());
        let own = [
            ("unix_socket_directories", config::text(&self.dir)),
            ("meshhook_secrets.root_key_file", key),
        ];
        config::append(&self.data_dir(), &own);
    }

    /// The process id of the running server.
    pub fn postmaster_pid(&self) -> i32 {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid"));
        let file = file.expect("server is running");
        file.lines().next().and_then(|line| line.parse().ok()).expect("its first line is the pid")
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = self.command("pg_ctl");
        command.args([action, "-w", "-t", "60", "-D"]).arg(self.data_dir());
        command
    }

    // --- settings and files --------------------------------------------------------

    /// Changes a setting in `postgresql.conf`; reload or restart for it to count.
    pub fn set(&self, name: &str, value: &str) {
        config::append(&self.data_dir(), &[(name, value)]);
    }

    /// Replaces the root key file (mode 0600); reload for it to count.
    pub fn write_root_key(&self, content: &str) {
        root_key::write(&self.root_key_path(), content, 0o600);
    }

    /// The root key file, outside the data directory.
    pub fn root_key_path(&self) -> PathBuf {
        self.dir.join("root.key")
    }

    /// This server's directory: data, socket, log, root key, and yours to write to.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// All that the server has logged, in every format it was told to use.
    pub fn log(&self) -> String {
        let collected = fs::read_dir(self.data_dir().join("log")).into_iter().flatten().flatten();
        std::iter::once(self.dir.join("log"))
            .chain(collected.map(|entry| entry.path()))
            .filter_map(|file| fs::read(file).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// The files of the data directory and the log that contain these bytes.
    /// Write a `CHECKPOINT` first to see the heap as it will be on disk.
    pub fn files_containing(&self, needle: &[u8]) -> Vec<PathBuf> {
        traces::files_containing(&self.data_dir(), needle)
            .into_iter()
            .chain(traces::files_containing(&self.dir.join("log"), needle))
            .collect()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().flat_map(|line| [line, "\n"]).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.pg_ctl("stop").args(["-m", "immediate"]).output();
        if !scratch::keep() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
