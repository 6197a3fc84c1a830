//! Errors as a driver sees them.

use postgres::error::SqlState;

/// The error that a server answered with.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The SQLSTATE.
    pub code: String,
    /// The one-line message.
    pub message: String,
    /// DETAIL, or empty.
    pub detail: String,
    /// HINT, or empty.
    pub hint: String,
    /// CONTEXT, or empty.
    pub context: String,
}

/// The error of a result that must be one with this SQLSTATE.
#[track_caller]
pub fn expect_error<T>(result: Result<T, postgres::Error>, sqlstate: &str) -> Failure {
    let Err(error) = result else { panic!("no error, but {sqlstate} was expected") };
    let Some(db) = error.as_db_error() else { panic!("{sqlstate} expected, not {error:?}") };
    assert_eq!(db.code(), &SqlState::from_code(sqlstate), "{db:?}");
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    Failure {
        code: db.code().code().to_owned(),
        message: db.message().to_owned(),
        detail: text(db.detail()),
        hint: text(db.hint()),
        context: text(db.where_()),
    }
}

impl Failure {
    /// Asserts what the message contains.
    #[track_caller]
    pub fn message(self, part: &str) -> Self {
        assert!(self.message.contains(part), "no {part:?} in the message: {self:?}");
        self
    }

    /// Asserts what the DETAIL contains.
    #[track_caller]
    pub fn detail(self, part: &str) -> Self {
        assert!(self.detail.contains(part), "no {part:?} in the detail: {self:?}");
        self
    }

    /// Asserts what the HINT contains.
    #[track_caller]
    pub fn hint(self, part: &str) -> Self {
        assert!(self.hint.contains(part), "no {part:?} in the hint: {self:?}");
        self
    }

    /// Asserts that no part of the error contains this.
    #[track_caller]
    pub fn hides(self, secret: &str) -> Self {
        assert!(!format!("{self:?}").contains(secret), "{secret:?} is in {self:?}");
        self
    }
}
