//! What a log line may say when a secret value may be in it: literals and parameters are masked,
//! everything else stays.
//!
//! [`lexer`] knows where PostgreSQL's literals begin and end; [`sql`] masks statements, [`text`] the
//! free text around them (DETAIL, CONTEXT…), [`report`] auto_explain's and pgaudit's messages, and
//! [`line`] a whole log line. [`names`] says which statements are concerned, [`taint`] finds known
//! values in free text, [`denial`] recognises PostgreSQL's own refusals of our objects.
//!
//! Everything works on bytes: a log line may be in any of the server's encodings, in all of which
//! ASCII bytes stand for themselves. In doubt it masks more, to the end of the text if need be.

mod buffer;
pub mod denial;
pub mod lexer;
pub mod line;
mod literal;
pub mod names;
pub mod report;
pub mod sql;
pub mod taint;
pub mod text;

/// What stands where something was.
pub const MASK: &[u8] = b"***";
