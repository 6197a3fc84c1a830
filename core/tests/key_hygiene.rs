//! Keys and plaintext leave nothing behind: no copy, no print, and no byte in memory that is given
//! back.
//!
//! The heap is watched by this binary's own allocator, which searches every block at the moment it
//! is freed. The stack has a test of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use meshhook_secrets_core::{
    Error,
    generate::{Charset, generate},
    key::{AuditKey, Dek, Kek, RootKey},
    root_key,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Debug,
    hint::black_box,
};
use support::{secrets::*, *};

// ---- print and copy ----

#[test]
fn keys_print_as_redacted() {
    redacted(&RootKey::from_bytes(&MARKER), "RootKey([redacted])");
    redacted(&Kek::from_bytes(&MARKER), "Kek([redacted])");
    redacted(&Dek::from_bytes(&MARKER), "Dek([redacted])");
    redacted(&AuditKey::from_bytes(&MARKER), "AuditKey([redacted])");
}

fn redacted(key: &impl Debug, expected: &str) {
    assert_eq!(format!("{key:?}"), expected);
    assert_eq!(format!("{key:#?}"), expected);
}

/// `$type: !$trait`, or this file does not compile: with the trait, `check` is ambiguous.
macro_rules! assert_not {
    ($trait:path: $($type:ty),+) => {
        const _: () = {
            trait Unless<Marker> {
                fn check() {}
            }
            struct Implements;
            impl<T: ?Sized> Unless<()> for T {}
            impl<T: ?Sized + $trait> Unless<Implements> for T {}
            $(let _ = <$type as Unless<_>>::check;)+
        };
    };
}
assert_not!(Clone: RootKey, Kek, Dek, AuditKey);
// Comparison would not be in constant time; the others would be further points of exposure.
assert_not!(PartialEq: RootKey, Kek, Dek, AuditKey);
assert_not!(std::fmt::Display: RootKey, Kek, Dek, AuditKey);
assert_not!(AsRef<[u8]>: RootKey, Kek, Dek, AuditKey);
assert_not!(std::ops::Deref: RootKey, Kek, Dek, AuditKey);

// ---- the heap ----

#[test]
fn the_watch_sees_what_is_freed_unwiped() {
    assert_eq!(watch(|| drop(black_box(Box::new(MARKER)))).left_over, 1);
    assert_eq!(watch(|| drop(black_box(MARKER.to_vec()))).left_over, 1);
    let mut growing = MARKER.to_vec();
    assert_eq!(watch(|| growing.reserve_exact(4096)).left_over, 1);
    let half = [MARKER[16..].to_vec(), vec![0; 100]].concat();
    assert_eq!(watch(|| drop(black_box(half))).left_over, 1);
}

#[test]
fn dropped_keys_are_wiped() {
    let seen = watch(|| {
        drop(black_box(RootKey::from_bytes(&MARKER)));
        drop(black_box(Kek::from_bytes(&MARKER)));
        drop(black_box(Dek::from_bytes(&MARKER)));
    });
    assert_eq!(seen, Seen { left_over: 0, wiped_keys: 3 });
}

#[test]
fn generated_keys_are_wiped() {
    let key = Dek::generate().unwrap();
    let seen = watch_for(*key.expose(), || drop(key));
    assert_eq!(seen, Seen { left_over: 0, wiped_keys: 1 });
}

#[test]
fn wrapping_and_unwrapping_leave_no_key_on_the_heap() {
    let (root_key, kek) = (RootKey::from_bytes(&OTHER), Kek::from_bytes(&OTHER));
    let seen = watch(|| {
        let wrapped = root_key.wrap(&Kek::from_bytes(&MARKER), &KEK_IDENTITY);
        drop(root_key.unwrap(&wrapped.unwrap(), &KEK_IDENTITY).unwrap());
        let wrapped = kek.wrap(&Dek::from_bytes(&MARKER), &DEK_IDENTITY);
        drop(kek.unwrap(&wrapped.unwrap(), &DEK_IDENTITY).unwrap());
    });
    assert_eq!(seen.left_over, 0);
    assert!(seen.wiped_keys >= 4);
}

#[test]
fn working_with_a_key_leaves_none_of_it_on_the_heap() {
    let seen = watch(every_use_of_the_marker_as_a_key);
    assert_eq!(seen.left_over, 0);
    assert!(seen.wiped_keys >= 3);
}

#[test]
fn opened_values_are_wiped() {
    let dek = Dek::from_bytes(&OTHER);
    for padding in [0, 1, 1000, 70_000] {
        let value = [MARKER.as_slice(), &vec![0; padding]].concat();
        let seen = watch(|| {
            let sealed = dek.seal(&value, &VALUE_IDENTITY).unwrap();
            drop(dek.open(&sealed, &VALUE_IDENTITY).unwrap());
        });
        assert_eq!(seen.left_over, 0, "{padding} bytes more");
    }
}

#[test]
fn a_refused_value_is_never_in_the_clear() {
    let dek = Dek::from_bytes(&OTHER);
    let mut sealed = dek.seal(&MARKER, &VALUE_IDENTITY).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    let seen = watch(|| {
        let refused = dek.open(&sealed, &VALUE_IDENTITY).map(drop);
        assert_eq!(refused, Err(Error::Authentication));
    });
    assert_eq!(seen.left_over, 0);
}

#[test]
fn generated_values_are_wiped() {
    let value = generate(32, Charset::Printable).unwrap();
    let bytes = value.as_slice().try_into().unwrap();
    assert_eq!(watch_for(bytes, || drop(value)).left_over, 0);
}

#[test]
fn root_keys_that_are_read_are_wiped() {
    let marker = base16ct::lower::encode_string(&MARKER);
    let other = base16ct::lower::encode_string(&OTHER);
    for (content, accepted) in [
        (marker.clone(), true),
        (format!("{other}\n{marker}\n"), true),
        (format!("{marker}\nnonsense\n"), false),
        (format!("{marker}\n{marker}\n"), false),
    ] {
        let seen = watch(|| {
            let keys = root_key::parse(content.as_bytes());
            assert_eq!(keys.is_ok(), accepted);
        });
        assert_eq!(seen.left_over, 0);
        assert!(seen.wiped_keys >= 1);
    }
}

fn every_use_of_the_marker_as_a_key() {
    let root_key = RootKey::from_bytes(&MARKER);
    drop(root_key.fingerprint());
    let wrapped = root_key.wrap(&Kek::from_bytes(&OTHER), &KEK_IDENTITY);
    drop(root_key.unwrap(&wrapped.unwrap(), &KEK_IDENTITY));
    let kek = Kek::from_bytes(&MARKER);
    let wrapped = kek.wrap(&Dek::from_bytes(&OTHER), &DEK_IDENTITY);
    drop(kek.unwrap(&wrapped.unwrap(), &DEK_IDENTITY));
    let dek = Dek::from_bytes(&MARKER);
    let sealed = dek.seal(b"value", &VALUE_IDENTITY);
    drop(dek.open(&sealed.unwrap(), &VALUE_IDENTITY));
    let mac = dek.authenticate(&METADATA_IDENTITY);
    assert_eq!(dek.verify(&METADATA_IDENTITY, &mac), Ok(()));
}

// ---- the watch over the heap ----

/// What was freed during a watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Blocks that still held either half of what was looked for.
    left_over: usize,
    /// Blocks of the size of a key, all zero.
    wiped_keys: usize,
}

struct Watch {
    sought: [u8; LEN],
    seen: Seen,
}

thread_local! {
    // No destructor and no lazy start: the allocator may look at any time.
    static WATCH: Cell<Option<Watch>> = const { Cell::new(None) };
}

fn watch(work: impl FnOnce()) -> Seen {
    watch_for(MARKER, work)
}

fn watch_for(sought: [u8; LEN], work: impl FnOnce()) -> Seen {
    let seen = Seen::default();
    WATCH.set(Some(Watch { sought, seen }));
    work();
    WATCH.take().unwrap().seen
}

struct Watched;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

// SAFETY: `System` does the work. `realloc` is the default one, made of the two below, so that
// what a block leaves behind when it moves is seen, too.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise. Zeroed, so that `dealloc` reads nothing uninitialised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(mut watch) = WATCH.take() {
            // SAFETY: the block is the caller's until `System.dealloc` below.
            let content = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            watch.seen.left_over += usize::from(holds(content, &watch.sought));
            watch.seen.wiped_keys += usize::from(content == [0; LEN]);
            WATCH.set(Some(watch));
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}
