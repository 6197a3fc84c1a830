//! Use cases: who may, which keys, what happens. No SQL text, no argument decoding.

pub mod access;
pub mod browse;
pub mod host;
mod keys;
pub mod lifecycle;
pub mod reveal;
pub mod sealing;
pub mod write;
