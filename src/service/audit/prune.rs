//! Retention: months that are over are dropped whole, with their seals, and the head remembers where the
//! chain begins now.

use super::{Event, keys, writer::require_whole_log};
use crate::{
    error::{Error, Result},
    pg::server,
    store::{Timestamp, audit as store},
};

/// Removes the months that lie whole before `before`: the partitions, and how many records each had.
pub fn prune(before: Timestamp, event: &mut Event) -> Result<Vec<(String, i64)>> {
    require_whole_log()?;
    server::require_writable()?;
    let now = server::now();
    if before > now {
        return Err(Error::invalid("before is in the future.")
            .hint("Give the time up to which records may go, such as now() - interval '1 year'."));
    }
    let (boundary, _) = store::month(before)?;
    // The writer waits for this row, so nothing is added meanwhile.
    let Some((mut head, mac)) = store::head(true)? else {
        return Ok(Vec::new());
    };
    keys::of(head.key_version)?.verify(&head, &mac)?;
    let dropped = store::drop_partitions(boundary)?;
    if let Some(last) = store::last_seal_before(boundary)? {
        head.anchor_id = last.seal.seal_id;
        head.anchor_mac = last.mac.try_into().map_err(|_| Error::corrupted())?;
        store::delete_seals(head.anchor_id)?;
    }
    head.pruned_before = head.pruned_before.max(Some(boundary));
    let key = keys::current()?;
    head.key_version = key.key_version;
    store::set_head(&head, &key.key.authenticate(&head))?;
    let names: Vec<&str> = dropped.iter().map(|(name, _)| name.as_str()).collect();
    event.detail(if names.is_empty() { String::from("nothing") } else { names.join(", ") });
    Ok(dropped)
}
