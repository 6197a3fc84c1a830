//! What `doctor()` asks the catalogs: one SQL text for each group of findings, in `doctor/`.
//!
//! They run as the owner, with a search_path of their own; unlike everywhere else here, names and
//! operators are therefore not qualified, which such long texts would not survive.

use crate::{
    error::Result,
    pg::{
        pinned::Pinned,
        spi::{MadeStatement, May},
        user::Acting,
    },
};
use meshhook_secrets_core::redact::lexer::{Kind, Tokens};
use pgrx::pg_sys::Oid;

/// Something that should be known or changed.
pub struct Finding {
    /// `critical`, `warning` or `info`.
    pub severity: String,
    /// A name that does not change.
    pub finding: String,
    /// What exactly.
    pub detail: String,
    /// A line each: SQL, `$ ` and a command for the shell of the server's user, or `-- ` and advice.
    pub remedy: String,
}

const GROUPS: [&str; 4] = [
    include_str!("doctor/logging.sql"),
    include_str!("doctor/grants.sql"),
    include_str!("doctor/objects.sql"),
    include_str!("doctor/server.sql"),
];

/// All findings that SQL can make.
pub fn findings() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for group in GROUPS {
        let statement = MadeStatement::new(String::from(group), &[])?;
        let _owner = Acting::as_owner()?;
        let _path = Pinned::search_path()?;
        statement.run(May::Read, &[], |found| {
            let text = |row, column| found.get(row, column).unwrap_or_default();
            findings.extend((0..found.count()).map(|row| Finding {
                severity: text(row, 1),
                finding: text(row, 2),
                detail: text(row, 3).replace(char::is_control, ""),
                remedy: safe(text(row, 4), found.get(row, 5)),
            }));
            Ok(())
        })?;
    }
    Ok(findings)
}

/// A remedy is read by lines: one in which a name (somebody else's choice) makes lines of its own is
/// replaced. In SQL such names stand in quotes; `object` is whose name it may be.
fn safe(remedy: String, object: Option<Oid>) -> String {
    let text = remedy.as_bytes();
    let is_suspect = Tokens::of(text).any(|token| {
        matches!(token.kind, Kind::Quoted | Kind::String { .. } | Kind::Dollar)
            && (!token.closed || remedy[token.body].chars().any(char::is_control))
    });
    match (is_suspect, object) {
        (false, _) => remedy,
        (true, Some(oid)) => {
            format!("-- The name has control characters: look at OID {}", oid.to_u32())
        }
        (true, None) => String::from("-- The name has control characters: look at the catalogs"),
    }
}
