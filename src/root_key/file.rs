//! The root key from a file that nobody else can read.

use super::Failure;
use meshhook_secrets_core::limits::ROOT_KEY_SOURCE_MAX;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
};
use zeroize::Zeroizing;

/// Whether the file would be accepted, without reading it.
pub fn examine(path: &str) -> Result<(), Failure> {
    check(&open(path)?)
}

/// Reads the file. It is opened first and then looked at, so that nobody can exchange it between.
pub fn read(path: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut file = open(path)?;
    check(&file)?;
    // One byte more than allowed tells that it is too long; the buffer never grows, so it is never
    // copied.
    let mut content = Zeroizing::new(vec![0; ROOT_KEY_SOURCE_MAX + 1]);
    let mut length = 0;
    while length < content.len() {
        match file.read(&mut content[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(cannot("read", &error)),
        }
    }
    if length > ROOT_KEY_SOURCE_MAX {
        return Err(Failure::new(
            format!("The root key file is longer than {ROOT_KEY_SOURCE_MAX} bytes."),
            "Check that meshhook_secrets.root_key_file names the right file, and reload the server.",
        ));
    }
    content.truncate(length);
    Ok(content)
}

fn open(path: &str) -> Result<File, Failure> {
    // O_NONBLOCK: opening a named pipe must not hang.
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| cannot("opened", &error))
}

fn check(file: &File) -> Result<(), Failure> {
    let metadata = file.metadata().map_err(|error| cannot("examined", &error))?;
    // SAFETY: always succeeds.
    let server = unsafe { libc::geteuid() };
    // The rule that PostgreSQL has for its own TLS key: a file of root's may be readable by its group,
    // since it could not be read by the server otherwise.
    let forbidden = if metadata.uid() == 0 && server != 0 { 0o037 } else { 0o077 };
    let cause = if !metadata.is_file() {
        "The root key file is not a regular file."
    } else if metadata.uid() != server && metadata.uid() != 0 {
        "The root key file belongs to neither the server's user nor root."
    } else if metadata.mode() & forbidden != 0 {
        "The root key file can be read or written by group or others."
    } else {
        return Ok(());
    };
    Err(Failure::new(
        cause,
        "Make it a regular file of the server's user with mode 0400 or 0600, or of root with mode 0440 or 0640, and reload the server.",
    ))
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::new(
        format!("The root key file cannot be {what}: {}.", error.kind()),
        "Check meshhook_secrets.root_key_file, and that the server's user can read it; then reload the server.",
    )
}
