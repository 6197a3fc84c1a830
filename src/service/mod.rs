//! Use cases: who may, which keys, what happens. No SQL text, no argument decoding.

pub mod access;
pub mod audit;
pub mod browse;
pub mod doctor;
pub mod health;
pub mod host;
pub mod kek_life;
pub mod kek_status;
mod keys;
pub mod lifecycle;
pub mod metrics;
pub mod reencrypt;
pub mod release;
pub mod reveal;
pub mod root_keys;
pub mod rotation;
pub mod sealing;
pub mod verify;
pub mod write;
