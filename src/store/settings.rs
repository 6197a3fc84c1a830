//! What `settings` remembers besides the binding and the schedule: when something was last found in order.

use super::guard::change;
use crate::{
    error::Result,
    pg::{
        server,
        spi::{Statement, parameter},
        user::Acting,
    },
};
use pgrx::{
    JsonB,
    pg_sys::{JSONBOID, TEXTOID},
};
use serde_json::json;

/// Remembers under `key` that something was found in order just now; nothing where nothing can be written.
pub fn remember(key: &str) -> Result<()> {
    static UPSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        &[TEXTOID, JSONBOID],
    );
    if server::require_writable().is_err() {
        return Ok(());
    }
    let _owner = Acting::as_owner()?;
    let value = JsonB(json!({ "at": server::iso(server::now()) }));
    change(|| UPSERT.change_one(&[parameter(key), parameter(value)]))
}
