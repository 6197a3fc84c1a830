//! Events of the server, which every database records.

use super::{Event, Wake, exists, read, whom, write};
use crate::{
    pg::server,
    shmem::{ring::EVENTS, text::Text},
};
use std::sync::atomic::{Ordering, compiler_fence};

/// Something happened to the server as a whole: every database that uses us records it.
pub fn server_event(action: &str, failed: bool, detail: &str) {
    if !exists() {
        return;
    }
    let wake = write(|state, ring| {
        let mut event =
            Event { time: server::now(), action: Text::EMPTY, failed, detail: Text::EMPTY };
        event.action.set(action);
        event.detail.set(detail);
        ring.events[ring.happened % EVENTS] = event;
        compiler_fence(Ordering::SeqCst);
        ring.happened += 1;
        let mut wake = Vec::new();
        for (desk, queue) in state.desks.iter_mut().zip(&ring.queues) {
            if queue.database != 0 {
                desk.asked += 1;
                wake.push(whom(desk, true));
            }
        }
        wake
    });
    wake.into_iter().for_each(Wake::up);
}

/// The events of the server after `time`, oldest first.
pub fn server_events(time: i64) -> Vec<Event> {
    let mut events: Vec<Event> =
        read(|_, ring| ring.events.iter().take(ring.happened.min(EVENTS)).copied().collect());
    events.retain(|event| event.time > time);
    events.sort_by_key(|event| event.time);
    events
}
