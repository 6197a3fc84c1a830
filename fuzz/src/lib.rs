//! What must hold for any bytes at all: the bodies of the fuzzers.
//!
//! Each target is a function that panics when something does not hold. The fuzzers (`make fuzz`) call it with
//! bytes that they invent; `core/tests/corpus.rs` includes this file and calls it with those that are kept in
//! `seeds/` and `corpus/`.

mod keys;
mod names;
mod records;
mod redaction;
mod source;

pub use keys::{envelopes, identities, kek_states, root_keys};
pub use names::{denials, names};
pub use records::records;
pub use redaction::{lines, statements, values};

/// A body: it takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by the name of their fuzzer.
pub const TARGETS: [(&str, Target); 10] = [
    ("denials", denials),
    ("envelopes", envelopes),
    ("identities", identities),
    ("kek_states", kek_states),
    ("lines", lines),
    ("names", names),
    ("records", records),
    ("root_keys", root_keys),
    ("statements", statements),
    ("values", values),
];
