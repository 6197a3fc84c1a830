//! Keys in memory: a mapping of their own that no core dump shows ([`region`]), and the keyring in
//! it with its lock ([`keyring`]). Beside it, what workers have to do ([`board`]) and what is counted
//! ([`counters`]).

pub mod audit_stub;
pub mod board;
pub mod counters;
pub mod keyring;
mod region;
mod traces;
mod vault;

pub use region::Protection;
