//! Retention: months that are over are dropped whole, with their seals, and the head remembers where the
//! chain begins now.

use super::{Event, keys, writer::require_whole_log};
use crate::{
    error::{Error, Result},
    pg::server,
    store::{
        Timestamp,
        audit::{self as store, StoredSeal},
    },
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
    // Before anything that the writer needs: whoever reads the log may go on for hours.
    store::seize_partitions(boundary)?;
    // The writer waits for this row, so nothing is added meanwhile.
    let Some((mut head, mac)) = store::head(true)? else {
        return Ok(Vec::new());
    };
    keys::of(head.key_version)?.verify(&head, &mac)?;
    let last = store::last_seal_before(boundary)?;
    if let Some(last) = &last {
        authenticate(head.anchor_id, head.anchor_mac, last.seal.seal_id)?;
    }
    let dropped = store::drop_partitions(boundary)?;
    if let Some(last) = last {
        head.anchor_id = last.seal.seal_id;
        head.anchor_mac = last.mac.try_into().map_err(|_| Error::corrupted())?;
        store::delete_seals(head.anchor_id)?;
    }
    head.pruned_before = head.pruned_before.max(Some(boundary));
    head.pruned_seal = head.seal_id;
    let key = keys::current()?;
    head.key_version = key.key_version;
    store::set_head(&head, &key.key.authenticate(&head))?;
    let names: Vec<&str> = dropped.iter().map(|(name, _)| name.as_str()).collect();
    event.detail(if names.is_empty() { String::from("nothing") } else { names.join(", ") });
    Ok(dropped)
}

/// XX001 unless the seals after this one and up to `last` are an unbroken chain: what was tampered with is
/// not to be pruned away.
fn authenticate(mut id: i64, mut mac: [u8; 32], last: i64) -> Result<()> {
    const PAGE: i64 = 1000;
    while id < last {
        let page = store::seals(id + 1, last, PAGE)?;
        if page.is_empty() {
            return Err(Error::corrupted());
        }
        for StoredSeal { seal, mac: found } in page {
            if (seal.previous_id, seal.previous_mac) != (id, mac) {
                return Err(Error::corrupted());
            }
            keys::of(seal.key_version)?.verify(&seal, &found)?;
            id = seal.seal_id;
            mac = found.try_into().map_err(|_| Error::corrupted())?;
        }
        server::check_for_interrupts();
    }
    Ok(())
}
