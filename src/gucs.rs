//! Every setting, with its default and the reason for it. Read them through the accessors.

use meshhook_secrets_core::limits;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum, pg_sys};
use std::{
    ffi::{CStr, CString},
    time::Duration,
};

static ROOT_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ROOT_KEY_COMMAND: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
/// Ten seconds: a key service answers in less than one, and callers right after a start wait for it.
static ROOT_KEY_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static MAX_VALUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(limits::VALUE_DEFAULT as i32);
/// Ten: enough to undo a bad rotation, few enough that an old key does not linger for years.
static MAX_VERSIONS: GucSetting<i32> = GucSetting::<i32>::new(10);
/// Thirty days: a deletion noticed at the end of the month can still be undone.
static RECOVERY_WINDOW: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 60);

/// A thousand: less than a tenth of a second of work between two commits.
static REWRAP_BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1000);
/// No pause: a rotation of a hundred thousand projects takes seconds.
static REWRAP_PAUSE: GucSetting<i32> = GucSetting::<i32>::new(0);
/// None: only the host knows which of its own functions hand values on.
static VALUE_FUNCTIONS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// On: what cannot be recorded is refused.
static AUDIT: GucSetting<bool> = GucSetting::<bool>::new(true);
/// Durable first: nobody reads unseen, even if the host goes down right after.
static AUDIT_MODE: GucSetting<AuditMode> = GucSetting::<AuditMode>::new(AuditMode::Wait);
/// Five seconds: many times what a commit takes, and still an answer while the client waits.
static AUDIT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);

/// How safe the record of a reveal is before the value is handed out.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum AuditMode {
    /// Committed.
    #[name = c"wait"]
    Wait,
    /// In shared memory, which survives everything but the loss of the host.
    #[name = c"nowait"]
    Nowait,
}

/// Declares the settings. The names are reserved, so that a misspelt one is noticed.
pub fn init() {
    // Where the root key is, is nobody's business but the superuser's (and pg_read_all_settings').
    let hidden = GucFlags::SUPERUSER_ONLY;
    GucRegistry::define_string_guc(
        c"meshhook_secrets.root_key_file",
        c"File that holds the root key.",
        c"One key a line, 64 hexadecimal digits or base64 of 32 bytes; the first is current, further ones are still accepted. Owned by the server's user, mode 0400 or 0600, or by root, mode 0440 or 0640.",
        &ROOT_KEY_FILE,
        GucContext::Sighup,
        hidden,
    );
    GucRegistry::define_string_guc(
        c"meshhook_secrets.root_key_command",
        c"Shell command that prints the root key.",
        c"Its standard output is read like root_key_file. A background worker runs it at start, at reload and at unseal().",
        &ROOT_KEY_COMMAND,
        GucContext::Sighup,
        hidden,
    );
    GucRegistry::define_int_guc(
        c"meshhook_secrets.root_key_timeout",
        c"Time after which root_key_command is killed.",
        c"Its whole process group is killed, and the secrets stay sealed until it succeeds.",
        &ROOT_KEY_TIMEOUT,
        100,
        10 * 60 * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"meshhook_secrets.max_value_size",
        c"Longest value that can be stored, in bytes.",
        c"Values that are stored already stay readable.",
        &MAX_VALUE_SIZE,
        1,
        limits::VALUE_MAX as i32,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_int_guc(
        c"meshhook_secrets.max_versions",
        c"Versions kept of each secret.",
        c"A write destroys the oldest ones beyond this number.",
        &MAX_VERSIONS,
        1,
        1000,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"meshhook_secrets.recovery_window",
        c"Time during which a deleted secret can be undeleted.",
        c"After it the name can be taken again, which purges the deleted secret.",
        &RECOVERY_WINDOW,
        0,
        10 * 365 * 24 * 60,
        GucContext::Suset,
        GucFlags::UNIT_MIN,
    );
    GucRegistry::define_int_guc(
        c"meshhook_secrets.rewrap_batch_size",
        c"Data keys that the background worker rewraps in one transaction.",
        c"During a rotation.",
        &REWRAP_BATCH_SIZE,
        1,
        100_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"meshhook_secrets.rewrap_pause",
        c"Pause of the background worker between two of these transactions.",
        c"A rotation takes longer and disturbs less.",
        &REWRAP_PAUSE,
        0,
        60_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"meshhook_secrets.audit",
        c"Records every call.",
        c"Off: nothing is recorded, for benchmarks. It can only be set for the whole server, and meshhook_secrets.health() says so.",
        &AUDIT,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"meshhook_secrets.audit_mode",
        c"How safe the record of a reveal is before the value is handed out.",
        c"wait: committed. nowait: in shared memory, lost only with the whole host.",
        &AUDIT_MODE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"meshhook_secrets.audit_timeout",
        c"Time after which a call is refused whose record cannot be written.",
        c"It is refused with PT503.",
        &AUDIT_TIMEOUT,
        100,
        10 * 60 * 1000,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    // Not for sessions to change: who could, could have his own literals logged, and those of the
    // functions he calls.
    GucRegistry::define_string_guc(
        c"meshhook_secrets.value_functions",
        c"The host's own functions, views and tables that values of secrets go through.",
        c"Names, separated by commas. In statements that mention one, literals and parameters are masked in the server log, as with our own functions.",
        &VALUE_FUNCTIONS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // SAFETY: a C string that PostgreSQL copies.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"meshhook_secrets".as_ptr()) }
}

/// `meshhook_secrets.root_key_file`; `None` if unset or empty.
pub fn root_key_file() -> Option<String> {
    text(&ROOT_KEY_FILE)
}

/// `meshhook_secrets.root_key_command`; `None` if unset or empty.
pub fn root_key_command() -> Option<String> {
    text(&ROOT_KEY_COMMAND)
}

/// `meshhook_secrets.root_key_timeout`.
pub fn root_key_timeout() -> Duration {
    Duration::from_millis(ROOT_KEY_TIMEOUT.get().max(0) as u64)
}

/// `meshhook_secrets.max_value_size`, in bytes.
pub fn max_value_size() -> usize {
    MAX_VALUE_SIZE.get().max(0) as usize
}

/// `meshhook_secrets.max_versions`.
pub fn max_versions() -> i32 {
    MAX_VERSIONS.get()
}

/// `meshhook_secrets.recovery_window`, in microseconds.
pub fn recovery_window() -> i64 {
    i64::from(RECOVERY_WINDOW.get()) * 60_000_000
}

/// `meshhook_secrets.rewrap_batch_size`.
pub fn rewrap_batch_size() -> i64 {
    i64::from(REWRAP_BATCH_SIZE.get())
}

/// `meshhook_secrets.rewrap_pause`.
pub fn rewrap_pause() -> Duration {
    Duration::from_millis(REWRAP_PAUSE.get().max(0) as u64)
}

/// `meshhook_secrets.audit`.
pub fn audit() -> bool {
    AUDIT.get()
}

/// Whether `meshhook_secrets.audit_mode` is `wait`.
pub fn audit_waits() -> bool {
    AUDIT_MODE.get() == AuditMode::Wait
}

/// `meshhook_secrets.audit_timeout`, in microseconds.
pub fn audit_timeout() -> i64 {
    i64::from(AUDIT_TIMEOUT.get()) * 1000
}

/// `meshhook_secrets.value_functions`. Asked for with every statement, hence not copied.
pub fn value_functions() -> &'static CStr {
    // SAFETY: PostgreSQL's variable; its text lives until the setting changes, which happens
    // between statements only, and nobody keeps it that long.
    unsafe {
        let value = *VALUE_FUNCTIONS.as_ptr();
        if value.is_null() { c"" } else { CStr::from_ptr(value) }
    }
}

fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    let value = setting.get()?.into_string().ok()?;
    (!value.is_empty()).then_some(value)
}
