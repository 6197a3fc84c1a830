//! Where root keys come from: a [`file`] or a [`command`], as the settings say.

mod command;
pub mod file;

use crate::gucs;
use meshhook_secrets_core::{key::RootKey, root_key};
use zeroize::Zeroizing;

/// Why there is no root key. Neither text names a path or holds output of the command: both are
/// shown to callers.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl Failure {
    fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into() }
    }
}

/// What came of an attempt to get the root keys.
pub enum Outcome {
    /// The keys, the current one first.
    Keys(Vec<RootKey>),
    /// None.
    Failed(Failure),
    /// Given up.
    Interrupted(Interruption),
}

/// Why a running command is given up.
#[derive(Clone, Copy)]
pub enum Interruption {
    /// The worker ends.
    Stop,
    /// The settings may have changed, or a newer request is waiting.
    Restart,
}

/// Gets the root keys from where the settings say. `interruption` is asked again and again while a
/// command runs.
pub fn load(interruption: impl Fn() -> Option<Interruption>) -> Outcome {
    let content = match (gucs::root_key_file(), gucs::root_key_command()) {
        (Some(path), None) => file::read(&path),
        (None, Some(command)) => {
            match command::run(&command, gucs::root_key_timeout(), &interruption) {
                Ok(content) => Ok(content),
                Err(command::End::Failed(failure)) => Err(failure),
                Err(command::End::Interrupted(why)) => return Outcome::Interrupted(why),
            }
        }
        (None, None) => Err(Failure::new(
            "No root key is configured.",
            "Set meshhook_secrets.root_key_file or meshhook_secrets.root_key_command and reload the server.",
        )),
        (Some(_), Some(_)) => Err(Failure::new(
            "Both root_key_file and root_key_command are set.",
            "Set only one of them and reload the server.",
        )),
    };
    match content.and_then(|content| parse(&content)) {
        Ok(keys) => Outcome::Keys(keys),
        Err(failure) => Outcome::Failed(failure),
    }
}

fn parse(content: &Zeroizing<Vec<u8>>) -> Result<Vec<RootKey>, Failure> {
    root_key::parse(content).map_err(|error| {
        Failure::new(
            format!("The root key source cannot be used: {error}."),
            "Give one key a line, 64 hexadecimal digits or base64 of 32 bytes (openssl rand -hex 32), and reload the server.",
        )
    })
}
