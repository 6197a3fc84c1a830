//! The SQL functions: decode arguments, call a service, encode the result. Their declarations,
//! rights and comments are in `sql/install`.

mod arguments;
pub mod audit;
pub mod browse;
pub mod host;
pub mod keks;
pub mod lifecycle;
pub mod observe;
pub mod reveal;
pub mod sealing;
pub mod write;
