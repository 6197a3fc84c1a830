//! What goes wrong: processes die or stand still, the server ends, the root key is gone, the network is
//! cut, the clock jumps. Work goes on meanwhile, as far as it can.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::Duration;

use support::{KEY_B, Shutdown, eventually, server_process, signal};

use crate::callers::Caller;
use crate::model::Root;
use crate::operations::Op;
use crate::proxy::Proxy;
use crate::world::World;

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    KillBackend,
    KillWorker,
    TerminateBackend,
    TerminateWorker,
    StopWorker,
    ImmediateStop,
    Restart,
    RootKeyMissing,
    RootKeyWrong,
    RootKeyReplaced,
    CutConnection,
    ClockJump,
}

/// The faults that every server survives.
pub const FAULTS: [Fault; 11] = [
    Fault::KillBackend,
    Fault::CutConnection,
    Fault::TerminateWorker,
    Fault::RootKeyMissing,
    Fault::ImmediateStop,
    Fault::TerminateBackend,
    Fault::StopWorker,
    Fault::RootKeyWrong,
    Fault::KillWorker,
    Fault::RootKeyReplaced,
    Fault::Restart,
];

const OUR_WORKERS: [&str; 4] = [
    "meshhook_secrets audit",
    "meshhook_secrets launcher",
    "meshhook_secrets maintenance",
    "meshhook_secrets root key",
];
const SERVERS_WORKERS: [&str; 3] = ["checkpointer", "walwriter", "background writer"];

impl World<'_> {
    /// A fault in the middle of work; then all is as it must be again.
    pub fn strike(&mut self, fault: Fault) {
        self.count(&format!("{fault:?}"));
        self.history.note(format!("--- {fault:?}"));
        let delay = Duration::from_micros(self.random.below(6000) as u64);
        let cluster = self.cluster;
        match fault {
            Fault::KillBackend => {
                let pid = self.backend();
                self.kill(pid, delay);
            }
            Fault::KillWorker => {
                let all = [OUR_WORKERS.as_slice(), &SERVERS_WORKERS].concat();
                if let Some(pid) = self.worker(&all) {
                    self.kill(pid, delay);
                }
            }
            Fault::TerminateBackend => {
                let pid = self.backend();
                self.amid_work(move || {
                    sleep(delay);
                    send(pid, "TERM");
                });
            }
            Fault::TerminateWorker => {
                if let Some(pid) = self.worker(&OUR_WORKERS) {
                    self.amid_work(move || {
                        sleep(delay);
                        send(pid, "TERM");
                    });
                }
            }
            Fault::StopWorker => {
                let all = [OUR_WORKERS.as_slice(), &SERVERS_WORKERS].concat();
                if let Some(pid) = self.worker(&all) {
                    let pause = Duration::from_millis(100 + self.random.below(400) as u64);
                    self.amid_work(move || {
                        send(pid, "STOP");
                        sleep(pause);
                        send(pid, "CONT");
                    });
                }
            }
            Fault::ImmediateStop => {
                self.amid_work(|| {
                    sleep(delay);
                    cluster.stop(Shutdown::Immediate);
                    cluster.start();
                });
                self.restarted();
            }
            Fault::Restart => {
                self.amid_work(|| {
                    sleep(delay);
                    cluster.restart();
                });
                self.restarted();
            }
            Fault::RootKeyMissing | Fault::RootKeyWrong => self.without_root_key(fault),
            Fault::RootKeyReplaced => self.replace_root_key(),
            Fault::CutConnection => self.cut_connection(),
            Fault::ClockJump => self.jump(),
        }
        self.recover();
    }

    /// Works until the fault has struck, and a little longer.
    fn amid_work<T: Send>(&mut self, fault: impl FnOnce() -> T + Send) -> T {
        scope(|scope| {
            let striking: ScopedJoinHandle<'_, T> = scope.spawn(fault);
            let mut more = 3;
            while more > 0 && self.step().is_ok() {
                if striking.is_finished() {
                    more -= 1;
                }
            }
            striking.join().expect("the fault strikes")
        })
    }

    /// SIGKILL: the server ends all its processes, recovers, and goes on.
    fn kill(&mut self, pid: i32, delay: Duration) {
        let mut witness = self.cluster.connect("postgres", "postgres");
        let done = self.amid_work(move || {
            sleep(delay);
            send(pid, "KILL")
        });
        // It may have ended by itself just before.
        if done {
            self.killed.push(pid);
            eventually("the server noticed", || witness.simple_query("SELECT 1").is_err());
        }
    }

    /// The process behind one of the sessions.
    fn backend(&mut self) -> i32 {
        let open: Vec<usize> =
            (0..self.sessions.len()).filter(|who| self.sessions[*who].client.is_some()).collect();
        let who = if open.is_empty() { 0 } else { *self.random.of(&open) };
        let _ = self.client(who);
        self.sessions[who].pid
    }

    fn worker(&mut self, titles: &[&str]) -> Option<i32> {
        let first = self.random.below(titles.len());
        let postmaster = self.cluster.postmaster_pid();
        let mut all = titles.iter().cycle().skip(first).take(titles.len());
        all.find_map(|title| server_process(postmaster, title))
    }

    /// A server that was started anew has forgotten an operator's seal, and all sessions.
    fn restarted(&mut self) {
        self.state.sealed_by_operator = false;
        self.settled_root_key();
    }

    // --- the root key ------------------------------------------------------------------------------

    fn without_root_key(&mut self, fault: Fault) {
        if self.state.sealed_by_operator || self.state.root != Root::Right {
            return;
        }
        match fault {
            Fault::RootKeyMissing => {
                fs::remove_file(self.cluster.root_key_path()).expect("it is there");
                self.state.root = Root::Missing;
            }
            _ => {
                self.cluster.write_root_key(KEY_B);
                self.state.root = Root::Wrong;
            }
        }
        self.cluster.reload();
        self.settled_root_key();
        // Restarts and crashes do not heal it.
        if self.random.percent(20) {
            self.strike(Fault::Restart);
        } else if self.random.percent(20) {
            self.strike(Fault::KillBackend);
        }
        for _ in 0..15 {
            if self.step().is_err() {
                self.recover();
            }
        }
        self.heal_root_key();
    }

    /// Puts the right key back.
    pub fn heal_root_key(&mut self) {
        self.cluster.write_root_key(&self.root_keys.join("\n"));
        self.state.root = Root::Right;
        self.cluster.reload();
        self.settled_root_key();
    }

    /// Waits until the server has what the file says.
    fn settled_root_key(&mut self) {
        if self.state.sealed_by_operator {
            return;
        }
        let (root, name, cluster) = (self.state.root, self.db.name(), self.cluster);
        // The right one opens the KEKs, and no line of the file is left out.
        let lines = self.root_keys.len() as i64;
        let asked = "SELECT sealed, (SELECT count(*) FROM meshhook_secrets.root_key_status() WHERE is_loaded),
            (SELECT count(*) FROM meshhook_secrets.root_key_status() WHERE NOT is_loaded)
            FROM meshhook_secrets.seal_status()";
        eventually("the server has read the root key", || {
            let Ok(mut client) = cluster.try_connect(name, "postgres") else { return false };
            let Ok(row) = client.query_one(asked, &[]) else { return false };
            let (sealed, loaded, missing): (bool, i64, i64) = (row.get(0), row.get(1), row.get(2));
            match root {
                Root::Right => !sealed && loaded == lines && missing == 0,
                Root::Missing => sealed,
                Root::Wrong => !sealed && missing > 0,
            }
        });
    }

    /// Exchanges the root key, as the README says.
    fn replace_root_key(&mut self) {
        if self.state.is_sealed() {
            return;
        }
        let new = self.random.hex(64);
        self.root_keys.insert(0, new);
        self.heal_root_key();
        let who = self.session_of(&Caller::KekAdmin);
        while self.state.is_sealed() || self.perform(who, &Op::RootKeyRotate).is_err() {
            self.recover();
        }
        // Locks of open transactions may have been in the way; then the former key stays a while.
        let current = "SELECT count(*) FROM meshhook_secrets.root_key_status() WHERE keks > 0";
        let needed: i64 = self.testimony(current, &[]).get(0);
        if needed == 1 && self.moved() {
            self.root_keys.truncate(1);
            self.heal_root_key();
        }
    }

    /// Whether the audit keys are under the current root key, too.
    fn moved(&mut self) -> bool {
        let stale = "SELECT count(*) FROM meshhook_secrets.kek_storage k FULL JOIN
            meshhook_secrets.audit_keys a USING (root_key_id)
            WHERE root_key_id <> (SELECT root_key_id FROM meshhook_secrets.root_key_status() WHERE is_current)
              AND (a.root_key_id IS NOT NULL OR k.kek_encrypted IS NOT NULL)";
        self.testimony(stale, &[]).get::<_, i64>(0) == 0
    }

    // --- the network ---------------------------------------------------------------------------------

    /// A client loses its connection somewhere in an answer.
    fn cut_connection(&mut self) {
        let who = self.session_of(&Caller::Service);
        if self.sessions[who].transaction.is_some() && self.commit(who).is_err() {
            return;
        }
        self.end(who);
        let proxy = Proxy::start(self.cluster);
        let caller = self.sessions[who].caller.clone();
        let Ok(client) = caller.connect_at(self.db, proxy.dir()) else {
            self.diverged("no connection through the proxy");
        };
        self.sessions[who].client = Some(client);
        self.sessions[who].pid = 0;
        proxy.cut_after(self.random.below(400));
        while self.session_step(who).is_ok() {}
        proxy.stop();
    }

    fn session_step(&mut self, who: usize) -> Result<(), crate::world::Cut> {
        if self.sessions[who].client.is_none() {
            return Err(crate::world::Cut);
        }
        let op = self.secret_op(who);
        self.perform(who, &op)
    }

    // --- the clock -----------------------------------------------------------------------------------

    fn jump(&mut self) {
        const HOUR: i64 = 3600;
        if !self.clock.is_settable() {
            return;
        }
        let by = *self.random.of(&[1, 90, 2 * HOUR, 26 * HOUR, 45 * 24 * HOUR]);
        // Never before the present, or the model's times were before those of the first rows.
        let back = self.clock.seconds() >= by && self.random.percent(60);
        self.clock.jump(if back { -by } else { by });
        self.history.note(format!("the clock is {} s off", self.clock.seconds()));
        for _ in 0..15 {
            if self.step().is_err() {
                self.recover();
            }
        }
    }
}

/// Sends a signal to a process that may have ended by itself; false if it has.
fn send(pid: i32, name: &str) -> bool {
    if name == "CONT" {
        signal(pid, name);
        return true;
    }
    let sent = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    sent.expect("there is a shell").success()
}
