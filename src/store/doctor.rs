//! What `doctor()` asks the catalogs: one SQL text for each group of findings, in `doctor/`.
//!
//! They run as the owner, with a search_path of their own; unlike everywhere else here, names and
//! operators are therefore not qualified, which such long texts would not survive.

use crate::{
    error::Result,
    pg::{
        path::PinnedPath,
        spi::{MadeStatement, May},
        user::Acting,
    },
};

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
        let _path = PinnedPath::pin()?;
        statement.run(May::Read, &[], |found| {
            let text = |row, column| found.get(row, column).unwrap_or_default();
            findings.extend((0..found.count()).map(|row| Finding {
                severity: text(row, 1),
                finding: text(row, 2),
                detail: text(row, 3),
                remedy: text(row, 4),
            }));
            Ok(())
        })?;
    }
    Ok(findings)
}
