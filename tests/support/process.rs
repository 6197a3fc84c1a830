//! Running commands, signalling processes, waiting for effects.

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
    run(Command::new("kill").args(["-s", name, "--", &pid.to_string()]));
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
