//! The PostgreSQL that the tests run on: copied programs with our extension.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, OnceLock};

use crate::{Account, run, scratch};

/// An installation made by `scripts/private-postgres`, once per test process.
#[derive(Debug)]
pub struct Prefix {
    bin: PathBuf,
    pub(crate) template: OnceLock<PathBuf>,
}

impl Prefix {
    /// The installation, made or brought up to date at first use.
    pub fn get() -> &'static Self {
        static PREFIX: LazyLock<Prefix> = LazyLock::new(|| Prefix::private_postgres(|_| ()));
        &PREFIX
    }

    /// An older PostgreSQL, to upgrade from: the one that `OLD_PG_CONFIG` names, with what was built for it
    /// in `OLD_TARGET_DIR`. Without these it is [`Prefix::get`]: `pg_upgrade` does the same then.
    pub fn old() -> &'static Self {
        static PREFIX: LazyLock<Option<Prefix>> = LazyLock::new(|| {
            let pg_config = std::env::var("OLD_PG_CONFIG").ok()?;
            let target = std::env::var("OLD_TARGET_DIR").expect("what was built for OLD_PG_CONFIG");
            Some(Prefix::private_postgres(|script| {
                script.envs([("PG_CONFIG", pg_config), ("CARGO_TARGET_DIR", target)]);
            }))
        });
        PREFIX.as_ref().unwrap_or_else(|| Prefix::get())
    }

    /// An installation for one test alone, which may put other versions of the extension into it.
    pub fn own() -> &'static Self {
        Box::leak(Box::new(Prefix::private_postgres(|script| {
            script.arg(scratch::new_dir());
        })))
    }

    /// Installs the extension: from this source tree, or one of `scripts/released`.
    pub fn install(&self, tree: &Path) {
        let mut package = Command::new(tree.join("scripts/package"));
        package.env("PG_CONFIG", self.program("pg_config"));
        if tree != Prefix::repository() {
            package.env("CARGO_TARGET_DIR", tree.join("target"));
        }
        run(&mut package);
    }

    /// Removes the extension.
    pub fn uninstall(&self) {
        fs::remove_file(self.library()).expect("it is installed");
        for file in fs::read_dir(self.extensions()).expect("a directory").flatten() {
            if file.file_name().to_string_lossy().starts_with("meshhook_secrets") {
                fs::remove_file(file.path()).expect("it is installed");
            }
        }
    }

    /// The root of the source tree.
    pub fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
    }

    /// The version of the extension in the source tree.
    pub fn version() -> String {
        let control = fs::read_to_string(Self::repository().join("meshhook_secrets.control"));
        let control = control.expect("the source tree is whole");
        let line = control.lines().find_map(|line| line.strip_prefix("default_version"));
        line.and_then(|line| line.split('\'').nth(1)).expect("it has a version").to_owned()
    }

    /// The file of a PostgreSQL program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A PostgreSQL program, to be run by the server's user, in a directory of its
    /// own and with a bare environment.
    pub fn command(&self, name: &str, dir: &Path) -> Command {
        let mut command = Command::new(self.program(name));
        command.current_dir(dir).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", dir);
        Account::of_server().run_as(&mut command);
        command
    }

    /// PostgreSQL's major version.
    pub fn major(&self) -> u32 {
        let version = self.pg_config("--version");
        let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().expect("a version has digits")
    }

    /// Where the installed loadable modules are.
    pub fn modules(&self) -> PathBuf {
        self.pg_config("--pkglibdir").into()
    }

    /// Where the installed control files and SQL scripts are.
    pub fn extensions(&self) -> PathBuf {
        Path::new(&self.pg_config("--sharedir")).join("extension")
    }

    /// Our installed library.
    pub fn library(&self) -> PathBuf {
        self.modules().join("meshhook_secrets.so")
    }

    fn pg_config(&self, what: &str) -> String {
        run(Command::new(self.program("pg_config")).arg(what)).trim().to_owned()
    }

    fn private_postgres(adjust: impl FnOnce(&mut Command)) -> Self {
        let mut script = Command::new(Prefix::repository().join("scripts/private-postgres"));
        adjust(&mut script);
        Self { bin: run(&mut script).trim().into(), template: OnceLock::new() }
    }
}
