//! Randomness: only the operating system's, asked anew each time. A generator in this process
//! would be copied by `fork`, and two server processes would then make the same nonces.

use crate::error::Error;
use rand::{TryRng, rngs::SysRng};

/// `N` random bytes from the operating system.
///
/// # Errors
/// [`Error::Randomness`] if the operating system gives none.
pub fn array<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// Fills `bytes` with randomness from the operating system.
///
/// # Errors
/// [`Error::Randomness`] if the operating system gives none.
pub fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    SysRng.try_fill_bytes(bytes).map_err(|_| Error::Randomness)
}

/// A random UUID, version 4 (RFC 9562, section 5.4).
///
/// # Errors
/// [`Error::Randomness`] if the operating system gives none.
pub fn uuid() -> Result<[u8; 16], Error> {
    let mut bytes = array::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(bytes)
}
