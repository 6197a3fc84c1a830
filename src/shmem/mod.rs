//! Keys in memory: a mapping of their own that no core dump shows ([`region`]), and the keyring in
//! it with its lock ([`keyring`]). Beside it, what workers have to do ([`board`]), what is counted
//! ([`counters`]), and audit records on their way to the table ([`audit`]), in a mapping that survives a
//! crash ([`ring`]).

pub mod audit;
pub mod board;
pub mod counters;
pub mod keyring;
mod region;
mod ring;
mod text;
mod traces;
mod vault;

pub use region::Protection;
