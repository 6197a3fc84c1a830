//! The root key from a command's standard output.

use super::{Failure, Interruption};
use meshhook_secrets_core::limits::ROOT_KEY_SOURCE_MAX;
use std::{
    io::{self, Read},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// Why a command gave nothing.
pub enum End {
    /// It failed.
    Failed(Failure),
    /// It was given up.
    Interrupted(Interruption),
}

/// Asked again and again while the command runs.
type Interrupt<'a> = &'a dyn Fn() -> Option<Interruption>;

/// Runs the command by the shell, in a process group of its own that is killed when time is up, and
/// in any case at the end. What it writes to standard error goes to the server log.
pub fn run(
    command: &str,
    timeout: Duration,
    interrupt: Interrupt<'_>,
) -> Result<Zeroizing<Vec<u8>>, End> {
    let deadline = Instant::now() + timeout;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let worker = std::process::id();
    // SAFETY: prctl(2) and getppid(2) are async-signal-safe, and nothing here asks for memory. The shell dies with
    // the worker, however that dies; if it is dead already, nobody would kill the shell.
    unsafe {
        shell.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() as u32 != worker {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let child =
        shell.spawn().map_err(|error| failed(&format!("cannot be started: {}", error.kind())))?;
    let mut group = Group { leader: child, reaped: false };
    let output = group.leader.stdout.take().ok_or_else(|| failed("has no output"))?;
    let content = read(output, deadline, interrupt)?;
    let status = group.wait(deadline, interrupt)?;
    if status.success() { Ok(content) } else { Err(failed(&format!("ended with {status}"))) }
}

/// The command's process group; killed and reaped on drop, whatever happened.
struct Group {
    leader: Child,
    reaped: bool,
}

impl Group {
    /// Waits for the command to end.
    fn wait(&mut self, deadline: Instant, interrupt: Interrupt<'_>) -> Result<ExitStatus, End> {
        while !self.has_ended() {
            check(deadline, interrupt)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end().map_err(|error| failed(&format!("was lost: {}", error.kind())))
    }

    /// Whether the command has ended. It is not reaped, so that its group's number stays its own.
    fn has_ended(&self) -> bool {
        // SAFETY: waitid(2) on a child of ours, into a zeroed siginfo.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            libc::waitid(libc::P_PID, self.leader.id(), &mut info, flags) != 0 || info.si_pid() != 0
        }
    }

    /// Kills the whole group, what the command left running in the background included, and then
    /// reaps its leader: until then the group's number cannot be somebody else's.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Ok(group) = i32::try_from(self.leader.id()) {
            // SAFETY: see above.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
        self.reaped = true;
        self.leader.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end();
        }
    }
}

/// How often a waiting loop looks whether the worker shall stop. A signal ends poll(2) at once.
const TICK: Duration = Duration::from_millis(100);

fn read(
    mut output: ChildStdout,
    deadline: Instant,
    interrupt: Interrupt<'_>,
) -> Result<Zeroizing<Vec<u8>>, End> {
    // Never grows, so it is never copied.
    let mut content = Zeroizing::new(vec![0; ROOT_KEY_SOURCE_MAX + 1]);
    let mut length = 0;
    loop {
        check(deadline, interrupt)?;
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
            Err(error) => return Err(failed(&format!("cannot be read: {}", error.kind()))),
        }
        if length > ROOT_KEY_SOURCE_MAX {
            return Err(failed(&format!("printed more than {ROOT_KEY_SOURCE_MAX} bytes")));
        }
    }
    content.truncate(length);
    Ok(content)
}

fn check(deadline: Instant, interrupt: Interrupt<'_>) -> Result<(), End> {
    if let Some(why) = interrupt() {
        return Err(End::Interrupted(why));
    }
    if Instant::now() >= deadline {
        return Err(failed("did not finish within meshhook_secrets.root_key_timeout"));
    }
    Ok(())
}

fn failed(what: &str) -> End {
    End::Failed(Failure::new(
        format!("The root key command {what}."),
        "Check meshhook_secrets.root_key_command and the server log; it is tried again by itself, at reload, and at meshhook_secrets.unseal().",
    ))
}
