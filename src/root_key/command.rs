//! The root key from a command's standard output.

use super::Failure;
use meshhook_secrets_core::limits::ROOT_KEY_SOURCE_MAX;
use std::{
    io::{self, Read},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

type Content = Result<Zeroizing<Vec<u8>>, Failure>;

/// Runs the command by the shell, in a process group of its own that is killed when time is up.
/// What it writes to standard error goes to the server log. `None` if `stop` says so meanwhile.
pub fn run(command: &str, timeout: Duration, stop: impl Fn() -> bool) -> Option<Content> {
    let deadline = Instant::now() + timeout;
    let spawned = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut group = match spawned {
        Ok(child) => Group(child),
        Err(error) => return Some(Err(failed(&format!("cannot be started: {}", error.kind())))),
    };
    let content = match group.0.stdout.take() {
        Some(output) => read(output, deadline, &stop),
        None => Err(End::Failed(failed("has no output"))),
    };
    let content = content.and_then(|content| {
        wait(&mut group.0, deadline, &stop)?;
        Ok(content)
    });
    match content {
        Ok(content) => Some(Ok(content)),
        Err(End::Failed(failure)) => Some(Err(failure)),
        Err(End::Stopped) => None,
    }
}

enum End {
    Failed(Failure),
    Stopped,
}

/// The command's process group; killed and reaped on drop, whatever happened.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            // SAFETY: the group was made for the command. Its leader is not reaped before this
            // kill unless it ended by itself; what it left running in the background dies too.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
        let _ = self.0.wait();
    }
}

/// How often a waiting loop looks whether the worker shall stop. A signal ends poll(2) at once.
const TICK: Duration = Duration::from_millis(100);

fn read(
    mut output: ChildStdout,
    deadline: Instant,
    stop: &impl Fn() -> bool,
) -> Result<Zeroizing<Vec<u8>>, End> {
    // Never grows, so it is never copied.
    let mut content = Zeroizing::new(vec![0; ROOT_KEY_SOURCE_MAX + 1]);
    let mut length = 0;
    loop {
        check(deadline, stop)?;
        let mut poll = libc::pollfd { fd: output.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&mut poll, 1, TICK.as_millis() as i32) };
        if ready <= 0 {
            continue;
        }
        match output.read(&mut content[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(End::Failed(failed(&format!("cannot be read: {}", error.kind()))));
            }
        }
        if length > ROOT_KEY_SOURCE_MAX {
            return Err(End::Failed(failed(&format!(
                "printed more than {ROOT_KEY_SOURCE_MAX} bytes"
            ))));
        }
    }
    content.truncate(length);
    Ok(content)
}

fn wait(child: &mut Child, deadline: Instant, stop: &impl Fn() -> bool) -> Result<(), End> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(End::Failed(failed(&format!("ended with {status}")))),
            Ok(None) => {}
            Err(error) => {
                return Err(End::Failed(failed(&format!("was lost: {}", error.kind()))));
            }
        }
        check(deadline, stop)?;
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn check(deadline: Instant, stop: &impl Fn() -> bool) -> Result<(), End> {
    if stop() {
        return Err(End::Stopped);
    }
    if Instant::now() >= deadline {
        return Err(End::Failed(failed("did not finish within meshhook_secrets.root_key_timeout")));
    }
    Ok(())
}

fn failed(what: &str) -> Failure {
    Failure::new(
        format!("The root key command {what}."),
        "Check meshhook_secrets.root_key_command and the server log; it is tried again by itself, at reload, and at meshhook_secrets.unseal().",
    )
}
