//! Whose processes the servers are: PostgreSQL refuses to run as root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use crate::run;

/// The user that runs the servers and owns their files.
#[derive(Debug)]
pub struct Account {
    other: Option<(u32, u32)>,
}

impl Account {
    /// Whoever runs the tests or, if that is root, `postgres` or else `nobody`.
    pub fn of_server() -> &'static Self {
        static ACCOUNT: LazyLock<Account> = LazyLock::new(|| {
            let id = |args: &[&str]| {
                run(Command::new("id").args(args)).trim().parse::<u32>().expect("a numeric id")
            };
            let other = (id(&["-u"]) == 0).then(|| {
                let exists = Command::new("id").arg("postgres").output();
                let known = exists.is_ok_and(|output| output.status.success());
                let name = if known { "postgres" } else { "nobody" };
                (id(&["-u", name]), id(&["-g", name]))
            });
            Account { other }
        });
        &ACCOUNT
    }

    /// Gives a file to this user.
    pub fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.other {
            chown(path, Some(uid), Some(gid)).expect("root gives files away");
        }
    }

    /// Has a command run as this user, without root's supplementary groups.
    pub fn run_as<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        match self.other {
            Some((uid, gid)) => command.uid(uid).gid(gid),
            None => command,
        }
    }
}
