//! A KEK goes only where it may, works only where it may, and never comes back from destruction.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use meshhook_secrets_core::{
    Error,
    dek_status::DekStatus,
    kek_status::KekStatus::{self, *},
};
use std::collections::HashSet;

/// Row: from. Column: to, in the order of `KekStatus::ALL`. `x`: allowed.
#[rustfmt::skip]
const TRANSITIONS: [(KekStatus, &str); 8] = [
    //                 P A R r D C S X
    (Pending,         ". x . . . . x ."),
    (Active,          ". . x . x x . ."),
    (Retiring,        ". . . x x x . ."),
    (Retired,         ". . . . x x x ."),
    (Disabled,        ". . x x . x x ."),
    (Compromised,     ". . . . . . x ."),
    (DestroyScheduled,". . . . x . . x"),
    (Destroyed,       ". . . . . . . ."),
];

#[test]
fn every_transition_is_as_the_table_says() {
    for (from, row) in TRANSITIONS {
        let allowed: Vec<bool> = row.split(' ').map(|cell| cell == "x").collect();
        assert_eq!(allowed.len(), KekStatus::ALL.len());
        for (to, allowed) in KekStatus::ALL.into_iter().zip(allowed) {
            assert_eq!(from.may_become(to), allowed, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn the_table_covers_every_status_in_order() {
    assert_eq!(TRANSITIONS.map(|(from, _)| from), KekStatus::ALL);
}

#[test]
fn nothing_stays_put_as_a_transition() {
    for status in KekStatus::ALL {
        assert!(!status.may_become(status), "{status:?}");
    }
}

#[test]
fn nothing_leaves_destroyed() {
    for status in KekStatus::ALL {
        assert!(!Destroyed.may_become(status), "{status:?}");
    }
    assert!(!Destroyed.may_wrap());
    assert!(!Destroyed.may_unwrap());
}

#[test]
fn destruction_is_always_scheduled_first() {
    for status in KekStatus::ALL {
        assert_eq!(status.may_become(Destroyed), status == DestroyScheduled, "{status:?}");
    }
}

#[test]
fn a_kek_in_use_cannot_be_scheduled_for_destruction() {
    for status in [Active, Retiring] {
        assert!(!status.may_become(DestroyScheduled), "{status:?}");
    }
}

#[test]
fn nothing_becomes_pending_again() {
    for status in KekStatus::ALL {
        assert!(!status.may_become(Pending), "{status:?}");
    }
}

#[test]
fn a_compromised_kek_does_not_wrap_and_is_not_made_active() {
    assert!(!Compromised.may_become(Active));
    assert!(!Compromised.may_wrap());
}

#[test]
fn only_active_wraps() {
    for status in KekStatus::ALL {
        assert_eq!(status.may_wrap(), status == Active, "{status:?}");
    }
}

#[test]
fn what_wraps_can_be_unwrapped_and_what_is_off_cannot() {
    for status in KekStatus::ALL {
        let works = [Active, Retiring, Retired, Compromised].contains(&status);
        assert_eq!(status.may_unwrap(), works, "{status:?}");
    }
}

#[test]
fn every_status_is_reachable_from_pending() {
    assert_eq!(reachable_from(Pending).len(), KekStatus::ALL.len());
}

#[test]
fn every_status_can_end_in_destruction() {
    for status in KekStatus::ALL {
        assert!(reachable_from(status).contains(&Destroyed), "{status:?}");
    }
}

#[test]
fn names_go_round() {
    for status in KekStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    for status in DekStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    let names: HashSet<_> = KekStatus::ALL.map(KekStatus::as_str).into();
    assert_eq!(names.len(), KekStatus::ALL.len());
}

#[test]
fn other_names_are_refused() {
    for name in ["", "Active", "ACTIVE", " active", "active ", "activ", "none"] {
        assert_eq!(name.parse::<KekStatus>(), Err(Error::UnknownStatus));
        assert_eq!(name.parse::<DekStatus>(), Err(Error::UnknownStatus));
    }
}

fn reachable_from(start: KekStatus) -> HashSet<KekStatus> {
    let mut reached = HashSet::from([start]);
    let mut open = vec![start];
    while let Some(from) = open.pop() {
        for to in KekStatus::ALL {
            if from.may_become(to) && reached.insert(to) {
                open.push(to);
            }
        }
    }
    reached
}
