//! Keys in memory: a mapping of their own that no core dump shows ([`region`]), and the keyring in
//! it with its lock ([`keyring`]).

pub mod keyring;
mod region;

pub use region::Protection;
