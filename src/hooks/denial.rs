//! Calls that PostgreSQL refuses because of a missing grant never reach our functions. The log hook
//! hears of them.

use crate::{pg::server, service::audit};
use meshhook_secrets_core::redact::denial::refused;

/// Looks at an error with SQLSTATE 42501 that this extension did not raise.
///
/// The transaction is failing: nothing here may look into tables.
pub fn notice(format: &[u8], message: &[u8], statement: &[u8]) {
    let path = server::setting(c"search_path").unwrap_or_default();
    if let Some(action) = refused(format, message, statement, path.as_bytes()) {
        grant_denied(action);
    }
}

/// The current user has no grant for `action`: the name of a function (or table, or the schema) of
/// ours. The error has been raised, is about to be logged, and its transaction is still to be rolled
/// back.
fn grant_denied(action: &'static str) {
    let role = server::setting(c"role").filter(|role| role != "none");
    audit::refused_by_server(action, role);
}
