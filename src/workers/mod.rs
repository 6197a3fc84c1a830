//! Background workers.

pub mod root_key;
