//! Running commands, signalling processes, waiting for effects.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use postgres::Client;

/// Runs a command that must succeed, and returns what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr),
    );
    text(&output.stdout)
}

/// Sends a signal, named as `kill` names it (`KILL`, `SEGV`, `HUP`…), to a process.
pub fn signal(pid: i32, name: &str) {
    // The shell's own: a bare Debian has no program of this name.
    run(Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]));
}

/// All processes of this machine, with their command lines.
pub fn processes() -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).into_owned()))
    })
    .collect()
}

/// The server process whose title starts with this. `pg_stat_activity` does not show all of them.
pub fn server_process(postmaster: i32, title: &str) -> Option<i32> {
    let title = format!("postgres: {title}");
    let mut found = processes().into_iter().filter(|(_, line)| line.starts_with(&title));
    found.find(|(pid, _)| is_child(*pid, postmaster)).map(|(pid, _)| pid)
}

/// All processes of a server but the postmaster.
pub(crate) fn children(postmaster: i32) -> Vec<i32> {
    let pids = processes().into_iter().map(|(pid, _)| pid);
    pids.filter(|pid| is_child(*pid, postmaster)).collect()
}

fn is_child(pid: i32, parent: i32) -> bool {
    let parent = format!("PPid:\t{parent}\n");
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|it| it.contains(&parent))
}

/// The server process behind a connection.
pub fn backend_pid(client: &mut Client) -> i32 {
    client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).expect("connection is alive").get(0)
}

/// Waits until something is so, at most 30 seconds, else fails naming it.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(20));
    }
}
