//! Secrets that are easy to find in memory, and how to find them.

pub const LEN: usize = 32;
pub const MARKER: [u8; LEN] = *b"\xb7this key must not be left over\x9d";
pub const OTHER: [u8; LEN] = *b"\x81a key which is not looked for.\xe2";

/// Whether either half of `secret` is in `memory`.
pub fn holds(memory: &[u8], secret: &[u8; LEN]) -> bool {
    let (first, second) = secret.split_at(LEN / 2);
    memory.windows(LEN / 2).any(|window| window == first || window == second)
}
