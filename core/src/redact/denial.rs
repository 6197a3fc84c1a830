//! PostgreSQL's own refusals of our objects: the calls that never reach us.

use super::lexer::{Kind, Tokens};
use super::names::Names;

/// Our schema.
pub const SCHEMA: &str = "meshhook_secrets";

/// Our functions.
pub const FUNCTIONS: &[&str] = &[
    "attach_projects",
    "audit_make_partition",
    "audit_prune",
    "audit_record_setup",
    "audit_search",
    "audit_verify",
    "dek_rotate",
    "doctor",
    "health",
    "host_project_changed",
    "kek_cancel_destroy",
    "kek_configure",
    "kek_destroy",
    "kek_disable",
    "kek_enable",
    "kek_generate",
    "kek_mark_compromised",
    "kek_rewrap",
    "kek_rotate",
    "kek_status",
    "kek_verify",
    "library_version",
    "member_projects",
    "metrics",
    "project_seal_status",
    "refuse_direct_change",
    "remove_versions",
    "root_key_rotate",
    "root_key_status",
    "root_key_verify",
    "seal",
    "seal_status",
    "secret_delete",
    "secret_describe",
    "secret_due",
    "secret_expire",
    "secret_generate",
    "secret_get",
    "secret_get_bytes",
    "secret_get_many",
    "secret_import_table",
    "secret_import_vault",
    "secret_list",
    "secret_purge",
    "secret_put",
    "secret_put_bytes",
    "secret_reencrypt",
    "secret_rollback",
    "secret_undelete",
    "secret_versions",
    "setup_supabase",
    "unseal",
];

/// Our tables and types, other than those named like functions.
pub const RELATIONS: &[&str] = &[
    "audit_head",
    "audit_keys",
    "audit_log",
    "audit_pending",
    "audit_seals",
    "data_keys",
    "kek_rotation",
    "kek_storage",
    "project_secrets",
    "rotation_jobs",
    "secret_info",
    "secret_version_info",
    "settings",
];

/// Names that others have too: they are ours only in statements that mention our schema, or where it
/// is in the search_path.
const COMMON: &[&str] = &["audit_keys", "audit_log", "data_keys", "health", "metrics", "settings"];

/// The function (or table) of ours that was refused, of a message with SQLSTATE 42501 made from
/// `format`; `None` if it was none of ours.
pub fn refused(
    format: &[u8],
    message: &[u8],
    statement: &[u8],
    search_path: &[u8],
) -> Option<&'static str> {
    let kind = format.strip_prefix(b"permission denied for ")?.strip_suffix(b" %s")?;
    let all = || FUNCTIONS.iter().chain(RELATIONS).copied();
    let schema = Names::of(vec![SCHEMA.as_bytes().to_vec()]);
    if kind == b"schema" {
        return schema.mentioned_in(message).then(|| called(statement).unwrap_or(SCHEMA));
    }
    // In every language the message has the name in it; the longest one that fits.
    let mut words = message.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').rev();
    words
        .find_map(|word| match word.starts_with(b"audit_log_") {
            // A partition of it.
            true => Some("audit_log"),
            false => all().find(|name| name.as_bytes() == word),
        })
        .filter(|name| {
            !COMMON.contains(name)
                || schema.mentioned_in(statement)
                || schema.mentioned_in(search_path)
        })
}

/// The first object of our schema that a statement names.
fn called(statement: &[u8]) -> Option<&'static str> {
    let is_code = |kind| !matches!(kind, Kind::Space | Kind::Comment);
    let mut tokens = Tokens::of(statement)
        .filter(|token| is_code(token.kind))
        .map(|token| &statement[token.body]);
    let (mut schema, mut dot) = (tokens.next()?, tokens.next()?);
    tokens.find_map(|name| {
        let qualified = schema.eq_ignore_ascii_case(SCHEMA.as_bytes()) && dot == b".";
        (schema, dot) = (dot, name);
        let mut ours = FUNCTIONS.iter().chain(RELATIONS);
        ours.find(|ours| qualified && name.eq_ignore_ascii_case(ours.as_bytes())).copied()
    })
}
