//! How far the audit writer of this database is behind.

/// The records that wait for the writer.
pub struct Queue {
    /// How many.
    pub depth: i64,
    /// When the oldest of them was made, in microseconds since 2000-01-01 UTC.
    pub oldest: Option<i64>,
    /// Whether there is a writer.
    pub writer_running: bool,
    /// Records given up since server start.
    pub lost: i64,
}

/// The queue of this database.
pub fn queue() -> Queue {
    Queue { depth: 0, oldest: None, writer_running: false, lost: 0 }
}
