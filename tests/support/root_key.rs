//! Root keys, and the places from which a server can get one.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{Account, config};

/// The root key that a server gets when a test asks for no other.
pub const KEY_A: &str = "5d1f0c7be4a926830f7d52c1ab3e98467c20d9f5b16e84ad03c97f2e5b8a6140";
/// Another one, valid but never the right one for data made under [`KEY_A`].
pub const KEY_B: &str = "a8e3177c40d95b62fe01c4937db82a5f6e09b3d41c78f526eb90ad37162f84cd";

/// Where a server finds its root key.
#[derive(Clone, Debug)]
pub enum RootKey {
    /// A file with this content, owned by the server, mode 0600.
    File(String),
    /// A file with this content and mode.
    FileWithMode(String, u32),
    /// A file that is named but does not exist.
    Missing,
    /// A command.
    Command(String),
    /// Neither is configured.
    None,
}

impl RootKey {
    /// What takes back the primary's settings in a standby.
    pub(crate) const UNSET: [(&str, &str); 2] =
        [("meshhook_secrets.root_key_file", ""), ("meshhook_secrets.root_key_command", "")];

    /// Makes the file, and returns the setting that a server needs.
    pub(crate) fn place(&self, file: &Path) -> Option<(&'static str, String)> {
        match self {
            Self::File(content) => write(file, content, 0o600),
            Self::FileWithMode(content, mode) => write(file, content, *mode),
            Self::Missing => {}
            Self::Command(command) => {
                return Some(("meshhook_secrets.root_key_command", command.clone()));
            }
            Self::None => return None,
        }
        Some(("meshhook_secrets.root_key_file", config::text(file)))
    }
}

/// Replaces a root key file in one step, as an operator should.
pub(crate) fn write(file: &Path, content: &str, mode: u32) {
    let new = file.with_extension("new");
    fs::write(&new, format!("{content}\n")).expect("cluster directory is writable");
    fs::set_permissions(&new, Permissions::from_mode(mode)).expect("own file");
    Account::of_server().own(&new);
    fs::rename(&new, file).expect("own directory");
}
