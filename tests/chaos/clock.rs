//! The server's clock, which a test may set: libfaketime stands between the server and the system.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use support::Account;

use crate::model::Micros;
use crate::operations::micros;

#[derive(Debug, Default)]
pub struct Clock {
    /// Where libfaketime reads how far the clock is off.
    file: Option<PathBuf>,
    seconds: i64,
}

impl Clock {
    /// One that can be set, by this file.
    pub fn settable(file: PathBuf) -> Self {
        let clock = Self { file: Some(file), seconds: 0 };
        clock.write();
        clock
    }

    pub fn is_settable(&self) -> bool {
        self.file.is_some()
    }

    /// The server's time.
    pub fn now(&self) -> Micros {
        micros(SystemTime::now()) + self.seconds * 1_000_000
    }

    /// Sets the clock forward or back.
    pub fn jump(&mut self, seconds: i64) {
        self.seconds += seconds;
        self.write();
    }

    /// How far it is off.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }

    fn write(&self) {
        let Some(file) = &self.file else { return };
        let new = file.with_extension("new");
        fs::write(&new, format!("{:+}\n", self.seconds)).expect("own directory");
        Account::of_server().own(&new);
        fs::rename(&new, file).expect("own directory");
    }

    /// The library, as Debian's package faketime installs it.
    pub fn library() -> PathBuf {
        let folders = fs::read_dir("/usr/lib").expect("every system has it").flatten();
        let place = |folder: &Path| folder.join("faketime/libfaketime.so.1");
        let mut libraries = folders.map(|folder| place(&folder.path()));
        let found = libraries.find(|library| library.exists());
        found.expect("install the package faketime (make test-blackbox does)")
    }
}
