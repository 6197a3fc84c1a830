//! Every error that a caller can meet, with its SQLSTATE: the only map from the core's errors to
//! PostgreSQL's.
//!
//! `PTnnn` is PostgREST's convention for "answer with HTTP status nnn"; psql shows it like any
//! other SQLSTATE. Messages are one short line without user data (PostgREST makes them the HTTP
//! reason phrase); DETAIL and HINT carry the rest. No error carries a secret or a key.

use crate::pg::raise::PgError;
use meshhook_secrets_core as core;
use std::borrow::Cow;

/// The result of everything that can be refused.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call does not succeed.
pub enum Error {
    /// We refuse.
    Refused(Box<Refusal>),
    /// PostgreSQL, or the host's own code that it ran, refuses: raised again as it is.
    Postgres(PgError),
}

/// A refusal of ours.
pub struct Refusal {
    /// SQLSTATE, five characters.
    pub state: &'static str,
    /// The message.
    pub message: &'static str,
    /// What exactly.
    pub detail: Option<Cow<'static, str>>,
    /// What to do.
    pub hint: Option<Cow<'static, str>>,
}

impl Error {
    /// A refusal without DETAIL and HINT.
    pub fn new(state: &'static str, message: &'static str) -> Self {
        Error::Refused(Box::new(Refusal { state, message, detail: None, hint: None }))
    }

    /// With this DETAIL.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        if let Error::Refused(refusal) = &mut self {
            refusal.detail = Some(detail.into());
        }
        self
    }

    /// With this HINT.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        if let Error::Refused(refusal) = &mut self {
            refusal.hint = Some(hint.into());
        }
        self
    }

    /// The SQLSTATE of a refusal of ours.
    pub fn state(&self) -> Option<&'static str> {
        match self {
            Error::Refused(refusal) => Some(refusal.state),
            Error::Postgres(_) => None,
        }
    }

    /// The SQLSTATE, whoever refuses.
    pub fn sqlstate(&self) -> String {
        match self {
            Error::Refused(refusal) => String::from(refusal.state),
            Error::Postgres(error) => error.sqlstate(),
        }
    }

    /// Whether stored bytes did not authenticate.
    pub fn is_corrupted(&self) -> bool {
        self.state() == Some("XX001")
    }

    /// 42501: no right, not a member, no such project. One text for all, so that it tells nobody
    /// which projects exist.
    pub fn not_permitted() -> Self {
        Error::new("42501", "permission denied for project")
            .detail("The project does not exist, or you are not allowed to do this in it.")
            .hint("Check the project id, and that your user is a member of the project.")
    }

    /// PT404: membership is proven, but there is no such secret.
    pub fn no_such_secret() -> Self {
        Error::new("PT404", "secret not found")
            .detail("The project has no secret of this name.")
            .hint("Names are case-sensitive; meshhook_secrets.secret_list shows the project's secrets.")
    }

    /// PT404: the secret has no such version.
    pub fn no_such_version(version: i32, current: i32) -> Self {
        Error::new("PT404", "secret version not found")
            .detail(format!("There is no version {version}; the current version is {current}."))
            .hint("meshhook_secrets.secret_versions shows the versions that can be read.")
    }

    /// PT410: the secret is deleted.
    pub fn deleted() -> Self {
        Error::new("PT410", "secret is deleted").detail("It is kept until its recovery window has passed.").hint(
            "Restore it with meshhook_secrets.secret_undelete, or remove it for good with meshhook_secrets.secret_purge.",
        )
    }

    /// PT410: the version has expired.
    pub fn expired() -> Self {
        Error::new("PT410", "secret has expired").detail("The version's time has passed; its value is kept.").hint(
            "Store a new value with meshhook_secrets.secret_put, or change the expiry with meshhook_secrets.secret_expire.",
        )
    }

    /// PT410: the version was destroyed to keep the number of versions bounded.
    pub fn destroyed(oldest: i32) -> Self {
        Error::new("PT410", "secret version is destroyed")
            .detail(format!("The oldest version that is kept is {oldest}."))
            .hint("The setting meshhook_secrets.max_versions decides how many versions are kept.")
    }

    /// PT409: `cas` does not match.
    pub fn cas_mismatch(current: i32) -> Self {
        Error::new("PT409", "secret has changed")
            .detail(format!("The current version is {current}, not the one given as cas."))
            .hint("Read the secret again, then decide; cas => 0 means \"only if there is none\".")
    }

    /// PT409: a step that the present state does not allow.
    pub fn conflict(message: &'static str) -> Self {
        Error::new("PT409", message)
    }

    /// PT409: versions and ids are counted up to 2,147,483,647.
    pub fn no_number_left(hint: &'static str) -> Self {
        Error::conflict("no number is left").detail("They end at 2147483647.").hint(hint)
    }

    /// 22004: an argument is NULL.
    pub fn null_argument(argument: &'static str) -> Self {
        Error::new("22004", "argument must not be null")
            .detail(format!("The argument \"{argument}\" is null."))
            .hint("Give a value; an empty string is a legal value of a secret.")
    }

    /// 22023: an argument has no legal value.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Error::new("22023", "invalid argument").detail(detail)
    }

    /// PT413: a value is over the limit.
    pub fn too_large(length: usize, limit: usize) -> Self {
        Error::new("PT413", "value is too large")
            .detail(format!("It has {length} bytes; the limit is {limit}."))
            .hint("Raise meshhook_secrets.max_value_size (at most 1 MiB), or keep large data elsewhere and store only its key here.")
    }

    /// PT413: something beside the value is over its limit.
    pub fn too_long(what: &'static str, limit: usize) -> Self {
        Error::new("PT413", "argument is too large")
            .detail(format!("{what} has more than {limit} bytes."))
            .hint("It is listed with the secret: keep it short.")
    }

    /// PT503: sealed, with the cause and the remedy.
    pub fn sealed(
        cause: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Error::new("PT503", "secrets are sealed").detail(cause).hint(remedy)
    }

    /// XX001: stored bytes did not authenticate. Says nothing about why.
    pub fn corrupted() -> Self {
        Error::new("XX001", "stored secret failed authentication")
            .hint("Restore it from a backup, or overwrite or delete it; find out who changed the tables of meshhook_secrets.")
    }

    /// 23503: the project does not exist in the attached table.
    pub fn no_such_project() -> Self {
        Error::new("23503", "project does not exist")
            .detail("The table bound by meshhook_secrets.attach_projects has no such project.")
            .hint("Create the project first.")
    }

    /// 25006: a write in recovery or in a read-only transaction.
    pub fn read_only() -> Self {
        Error::new("25006", "cannot change secrets in a read-only transaction")
            .detail("The server is a standby, or the transaction is read-only.")
            .hint("Connect to the primary, in a transaction that may write.")
    }

    /// 25006: a write where a subscription keeps our tables.
    pub fn subscribed() -> Self {
        Error::new("25006", "cannot change secrets that a subscription keeps")
            .detail("The tables of meshhook_secrets come from a publisher, which knows nothing of what is changed here.")
            .hint("Connect to the publisher. DROP SUBSCRIPTION makes this database one of its own (docs/replication.md).")
    }

    /// 55000: the library was not loaded at server start.
    pub fn not_preloaded() -> Self {
        Error::new("55000", "meshhook_secrets is not preloaded")
            .detail("Keys live in shared memory, which only exists when the library is loaded at server start.")
            .hint("Add meshhook_secrets to shared_preload_libraries and restart the server.")
    }

    /// XX000: a defect of ours.
    pub fn internal(detail: impl Into<Cow<'static, str>>) -> Self {
        Error::new("XX000", "internal error in meshhook_secrets")
            .detail(detail)
            .hint("Please report this with the server version; no secret is part of this message.")
    }
}

impl From<core::Error> for Error {
    fn from(error: core::Error) -> Self {
        use core::Error as E;
        match error {
            E::Authentication
            | E::EnvelopeTooShort
            | E::UnknownFormat(_)
            | E::UnknownAlgorithm(_)
            | E::UnknownStatus => Error::corrupted(),
            E::Randomness => Error::sealed(
                "The operating system gave no randomness.",
                "Check getrandom(2) on the server's host.",
            ),
            E::TooLarge => Error::too_large(core::limits::VALUE_MAX + 1, core::limits::VALUE_MAX),
            E::Name(name) => Error::invalid(name.to_string())
                .hint("A name has 1 to 255 characters: a letter or underscore, then letters, digits, underscores, dots and hyphens."),
            E::Generate(core::error::GenerateError::Charset) => {
                Error::invalid("There is no such charset.").hint(format!(
                    "The charsets are: {}.",
                    core::generate::Charset::NAMES.join(", ")
                ))
            }
            E::Generate(length) => Error::invalid(length.to_string())
                .hint("32 characters of base64url hold 192 bits, enough for every key and password."),
            E::RootKey(error) => Error::internal(error.to_string()),
        }
    }
}

impl From<core::error::NameError> for Error {
    fn from(error: core::error::NameError) -> Self {
        core::Error::from(error).into()
    }
}

impl From<core::error::GenerateError> for Error {
    fn from(error: core::error::GenerateError) -> Self {
        core::Error::from(error).into()
    }
}
