//! What a server shall be like before it first starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Account, Cluster, KEY_A, Prefix, RootKey, config, run, scratch};

/// Describes a server; made by [`Cluster::builder`].
#[derive(Clone, Debug)]
pub struct ClusterBuilder<'p> {
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    root_key: RootKey,
    extension: String,
    prefix: Option<&'static Prefix>,
    files: Files<'p>,
}

/// Where the data directory comes from.
#[derive(Clone, Debug)]
enum Files<'p> {
    New,
    Primary(&'p Cluster),
    Backup(PathBuf),
}

impl<'p> ClusterBuilder<'p> {
    pub(crate) fn new() -> Self {
        Self {
            settings: vec![("shared_preload_libraries".into(), config::preload())],
            environment: Vec::new(),
            root_key: RootKey::File(KEY_A.into()),
            extension: config::create_extension(),
            prefix: None,
            files: Files::New,
        }
    }

    /// Sets a server setting.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Sets a variable in the server's environment, which is otherwise bare.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets where the root key comes from (default: a file with [`KEY_A`]).
    pub fn root_key(mut self, root_key: RootKey) -> Self {
        self.root_key = root_key;
        self
    }

    /// Sets the installation that it runs on (default: the one that all share).
    pub fn prefix(mut self, prefix: &'static Prefix) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// Sets how [`Cluster::database`] creates the extension (default: the current version).
    pub fn extension(mut self, create: &str) -> Self {
        self.extension = create.into();
        self
    }

    /// Whether the extension is in `shared_preload_libraries` (default: it is).
    pub fn preload(self, preload: bool) -> Self {
        let libraries = if preload { config::preload() } else { String::new() };
        self.setting("shared_preload_libraries", &libraries)
    }

    /// Makes the server a hot standby of a running one, whose settings it takes over.
    pub fn standby_of(mut self, primary: &'p Cluster) -> Self {
        self.files = Files::Primary(primary);
        self
    }

    /// Copies the server's data directory, and with it its settings, from a backup.
    pub fn backup(mut self, data: &Path) -> Self {
        self.files = Files::Backup(data.to_owned());
        self
    }

    /// Starts the server.
    pub fn start(self) -> Cluster {
        self.try_start().unwrap_or_else(|log| panic!("server does not start:\n{log}"))
    }

    /// Starts the server, or returns what it and `pg_ctl` said.
    pub fn try_start(self) -> Result<Cluster, String> {
        let cluster = self.create();
        cluster.try_start()?;
        Ok(cluster)
    }

    /// Makes the server's files without starting it.
    pub fn create(self) -> Cluster {
        let dir = scratch::new_dir();
        let data = dir.join("data");
        let prefix = self.prefix.unwrap_or_else(|| Prefix::get());
        match self.files {
            Files::New => copy(template(prefix), &data),
            Files::Primary(primary) => {
                let mut backup = primary.command("pg_basebackup");
                run(backup.args(["--write-recovery-conf", "--checkpoint=fast", "-D"]).arg(&data));
                config::append(&data, &RootKey::UNSET);
            }
            Files::Backup(backup) => {
                copy(&backup, &data);
                config::append(&data, &RootKey::UNSET);
            }
        }
        config::append(&data, &[("unix_socket_directories", config::text(&dir))]);
        config::append(&data, &self.settings);
        config::append(&data, self.root_key.place(&dir.join("root.key")).as_slice());
        Cluster::new(prefix, dir, self.extension, self.environment)
    }
}

fn copy(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    run(Account::of_server().run_as(&mut copy));
}

/// A pristine data directory to copy: `initdb` is slow.
fn template(prefix: &Prefix) -> &Path {
    prefix.template.get_or_init(|| {
        let data = scratch::new_dir();
        // Servers of any version upgrade to each other: none has checksums, which is the older default.
        let checksums = (prefix.major() >= 18).then_some("--no-data-checksums");
        run(prefix
            .command("initdb", &data)
            .args(["--username=postgres", "--auth=trust", "--no-locale", "--encoding=UTF8"])
            .args(["--no-sync", "--wal-segsize=1"])
            .args(checksums)
            .arg("-D")
            .arg(&data));
        config::append(&data, config::COMMON);
        data
    })
}
