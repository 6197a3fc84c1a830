//! Looking for bytes that should be nowhere.

use std::fs;
use std::path::{Path, PathBuf};

use memchr::memmem;

/// The files at and below a path that contain these bytes. Files that vanish
/// while we look are skipped.
pub fn files_containing(path: &Path, needle: &[u8]) -> Vec<PathBuf> {
    assert!(!needle.is_empty(), "everything contains nothing");
    if let Ok(entries) = fs::read_dir(path) {
        return entries
            .flatten()
            .flat_map(|entry| files_containing(&entry.path(), needle))
            .collect();
    }
    let found = fs::read(path).is_ok_and(|bytes| memmem::find(&bytes, needle).is_some());
    if found { vec![path.to_owned()] } else { Vec::new() }
}
