//! Direct changes of our tables are refused by a trigger; our own statements announce themselves.

use std::cell::Cell;

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Runs a statement of ours on our tables.
pub fn change<T>(statement: impl FnOnce() -> T) -> T {
    let _ours = Ours(OURS.replace(true));
    statement()
}

/// Runs code of the host in the middle of a statement of ours: what it changes is not ours.
pub fn foreign<T>(code: impl FnOnce() -> T) -> T {
    let _ours = Ours(OURS.replace(false));
    code()
}

/// Whether the running statement is ours.
pub fn is_ours() -> bool {
    OURS.get()
}

/// Puts the flag back, also when the statement fails.
struct Ours(bool);

impl Drop for Ours {
    fn drop(&mut self) {
        OURS.set(self.0);
    }
}
