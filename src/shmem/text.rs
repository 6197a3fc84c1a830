//! A text of bounded length in shared memory.

/// At most `N` bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Text<const N: usize> {
    length: usize,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// No text.
    pub const EMPTY: Self = Text { length: 0, bytes: [0; N] };

    /// Puts a text in, cut if it is too long.
    pub fn set(&mut self, text: &str) {
        self.length = text.floor_char_boundary(N);
        self.bytes[..self.length].copy_from_slice(&text.as_bytes()[..self.length]);
    }

    /// The text.
    pub fn get(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.length.min(N)]).into_owned()
    }
}
