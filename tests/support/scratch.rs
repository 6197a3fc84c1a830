//! The directory of this test process, and the guardian that removes it.
//!
//! Destructors do not run when a test process aborts, is killed or just exits
//! with its statics. So a little shell waits at the end of a pipe: when the test
//! process is gone, the pipe closes, and the shell stops the servers that live in
//! the directory (their command lines name it) and removes it.
//! `MESHHOOK_TEST_KEEP=1` keeps the files.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::Builder;

use crate::Account;

const GUARDIAN: &str = r#"
    trap '' INT TERM HUP
    cat >/dev/null
    for signal in QUIT QUIT QUIT QUIT QUIT QUIT QUIT QUIT QUIT QUIT KILL; do
        files=$(grep -lsF "$SCRATCH/" /proc/[0-9]*/cmdline)
        [ -n "$files" ] || break
        for file in $files; do pid=${file#/proc/}; kill -s $signal "${pid%/*}"; done
        sleep 0.3
    done
    [ -n "$MESHHOOK_TEST_KEEP" ] || rm -rf "$SCRATCH"
"#;

struct Scratch {
    dir: PathBuf,
    _guardian: Child,
}

/// The process's directory. Short, for a socket's path has at most 107 bytes, and
/// never `$TMPDIR`, which may be closed to the server's user.
pub fn dir() -> &'static Path {
    static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
        let dir = Builder::new().prefix("mhs-").disable_cleanup(true).tempdir_in("/tmp");
        let dir = dir.expect("/tmp is writable").keep();
        Account::of_server().own(&dir);
        let guardian = Command::new("sh")
            .args(["-c", GUARDIAN])
            .env("SCRATCH", &dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("there is a shell");
        Scratch { dir, _guardian: guardian }
    });
    &SCRATCH.dir
}

/// A new directory in it, owned by the server's user.
pub fn new_dir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let path = dir().join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::create_dir(&path).expect("scratch directory is writable");
    Account::of_server().own(&path);
    path
}

/// Whether the developer wants to look at the files afterwards.
pub fn keep() -> bool {
    std::env::var_os("MESHHOOK_TEST_KEEP").is_some()
}
