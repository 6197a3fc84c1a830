//! Texts that are made without ever running out of memory: that would end the server, and texts may
//! be as long as a statement. A text that finds no room becomes the mask.

use super::MASK;

/// A text being made.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    short: bool,
}

impl Buffer {
    /// An empty one, with room for this many bytes and some more.
    pub fn with_room(length: usize) -> Self {
        let mut buffer = Self::default();
        buffer.short = buffer.bytes.try_reserve(length.saturating_add(64)).is_err();
        buffer
    }

    /// Adds a part.
    pub fn add(&mut self, part: &[u8]) {
        // One more: whoever makes a C string of it finds the room.
        if self.short || self.bytes.try_reserve(part.len().saturating_add(1)).is_err() {
            // What was made so far gives its memory back.
            *self = Self { bytes: Vec::new(), short: true };
            return;
        }
        self.bytes.extend_from_slice(part);
    }

    /// What there is so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The text; `None` if there was no room for it.
    pub fn text(self) -> Option<Vec<u8>> {
        (!self.short).then_some(self.bytes)
    }

    /// The text, or the mask.
    pub fn or_mask(self) -> Vec<u8> {
        self.text().unwrap_or_else(|| MASK.to_vec())
    }
}

/// A copy, or the mask.
pub(crate) fn copy(text: &[u8]) -> Vec<u8> {
    join(&[text])
}

/// One after the other, or the mask.
pub(crate) fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Buffer::with_room(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.add(part));
    out.or_mask()
}
