//! Keys and plaintext leave nothing behind: no copy, no print, and no byte in memory that is given
//! back.
//!
//! The heap is watched by this binary's own allocator, which searches every block at the moment it
//! is freed; the stack is searched below the caller's frame after the call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use hkdf::Hkdf;
use meshhook_secrets_core::{
    Error,
    dek_status::DekStatus,
    generate::{Charset, generate},
    identity::{DekIdentity, Identity, KekIdentity, MetadataIdentity, ValueIdentity},
    kek_status::KekStatus,
    key::{Dek, Kek, RootKey},
    root_key,
};
use sha2::{Sha256, block_api::compress256};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Debug,
    hint::black_box,
    ptr::with_exposed_provenance,
};
use xaes_256_gcm::{
    aead::{Aead, KeyInit, Payload},
    aes::{Aes256, cipher::BlockCipherEncrypt},
    aes_gcm::{Aes256Gcm, Nonce},
};

const LEN: usize = 32;
const MARKER: [u8; LEN] = *b"\xb7this key must not be left over\x9d";
const OTHER: [u8; LEN] = *b"\x81a key which is not looked for.\xe2";

const KEK_IDENTITY: KekIdentity<'static> =
    KekIdentity { kek_id: 7, root_key_id: "160dd0f4b020b4cb", status: KekStatus::Active };
const DEK_IDENTITY: DekIdentity =
    DekIdentity { project_id: [1; 16], dek_version: 5, kek_id: 7, status: DekStatus::Active };
const VALUE_IDENTITY: ValueIdentity<'static> = ValueIdentity {
    project_id: [1; 16],
    secret_id: [2; 16],
    name: "API_KEY",
    version: 3,
    dek_version: 5,
    expires_at: None,
};
const METADATA_IDENTITY: MetadataIdentity<'static> = MetadataIdentity {
    project_id: [1; 16],
    secret_id: [2; 16],
    name: "API_KEY",
    current_version: 3,
    oldest_version: 1,
    dek_version: 5,
    expires_at: None,
    deleted_at: None,
    purge_after: None,
};

// ---- print and copy ----

#[test]
fn keys_print_as_redacted() {
    redacted(&RootKey::from_bytes(&MARKER), "RootKey([redacted])");
    redacted(&Kek::from_bytes(&MARKER), "Kek([redacted])");
    redacted(&Dek::from_bytes(&MARKER), "Dek([redacted])");
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
assert_not!(Clone: RootKey, Kek, Dek);
// Comparison would not be in constant time; the others would be further points of exposure.
assert_not!(PartialEq: RootKey, Kek, Dek);
assert_not!(std::fmt::Display: RootKey, Kek, Dek);
assert_not!(AsRef<[u8]>: RootKey, Kek, Dek);
assert_not!(std::ops::Deref: RootKey, Kek, Dek);

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

// ---- the stack ----

#[test]
fn the_search_sees_what_is_left_on_the_stack() {
    #[inline(never)]
    fn leave_on_the_stack() {
        let mut deep = [0_u8; 1024];
        deep[500..][..LEN].copy_from_slice(black_box(&MARKER));
        black_box(&deep);
    }
    assert!(holds(&stack_after(leave_on_the_stack), &MARKER));
    assert!(!holds(&stack_after(|| ()), &MARKER));
}

#[test]
fn sealing_and_opening_leave_neither_key_nor_value_on_the_stack() {
    let (key, value) = (Dek::from_bytes(&OTHER), MARKER);
    let mut sealed = vec![];
    let stack = stack_after(|| sealed = key.seal(&value, &VALUE_IDENTITY).unwrap());
    for secret in [OTHER, value, message_key(&OTHER, &sealed)] {
        assert!(!holds(&stack, &secret));
    }
    let stack = stack_after(|| drop(key.open(&sealed, &VALUE_IDENTITY)));
    for secret in [OTHER, value, message_key(&OTHER, &sealed)] {
        assert!(!holds(&stack, &secret));
    }
}

#[test]
fn wrapping_and_unwrapping_leave_no_key_on_the_stack() {
    let (key, wrapped_key) = (RootKey::from_bytes(&OTHER), Kek::from_bytes(&MARKER));
    let mut wrapped = vec![];
    let stack = stack_after(|| wrapped = key.wrap(&wrapped_key, &KEK_IDENTITY).unwrap());
    for secret in [OTHER, MARKER, message_key(&OTHER, &wrapped)] {
        assert!(!holds(&stack, &secret));
    }
    let stack = stack_after(|| drop(key.unwrap(&wrapped, &KEK_IDENTITY)));
    for secret in [OTHER, MARKER, message_key(&OTHER, &wrapped)] {
        assert!(!holds(&stack, &secret));
    }
}

#[test]
fn authenticating_leaves_no_key_on_the_stack() {
    let key = Dek::from_bytes(&MARKER);
    let mac = key.authenticate(&METADATA_IDENTITY);
    let mut mac_key = [0; LEN];
    Hkdf::<Sha256>::new(None, &MARKER)
        .expand(b"meshhook_secrets/v1/metadata-mac", &mut mac_key)
        .unwrap();
    // HMAC (RFC 2104) holds its key masked by these two, too.
    let mut secrets = [0, 0x36, 0x5c].map(|mask| mac_key.map(|byte| byte ^ mask)).to_vec();
    // … and the hash states after them, which forge MACs as well as the key does.
    secrets.extend([0x36, 0x5c].map(|mask| keyed_state(&mac_key, mask)));
    for stack in [
        stack_after(|| _ = black_box(key.authenticate(&METADATA_IDENTITY))),
        stack_after(|| _ = black_box(key.verify(&METADATA_IDENTITY, &mac))),
    ] {
        assert!(!holds(&stack, &MARKER));
        for secret in &secrets {
            assert!(!holds(&stack, secret));
        }
    }
}

/// SHA-256's state (FIPS 180-4, in memory's byte order) after the masked block of an HMAC key.
fn keyed_state(key: &[u8; LEN], mask: u8) -> [u8; LEN] {
    let mut state = [
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
        0x5be0cd19,
    ];
    let mut block = [mask; 64];
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    compress256(&mut state, &[block]);
    let mut bytes = [0; LEN];
    for (place, word) in bytes.chunks_exact_mut(4).zip(state) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

#[test]
fn fingerprinting_leaves_no_key_on_the_stack() {
    let key = RootKey::from_bytes(&MARKER);
    let (pseudorandom_key, _) = Hkdf::<Sha256>::extract(None, &MARKER);
    let stack = stack_after(|| drop(key.fingerprint()));
    for secret in [MARKER, pseudorandom_key.into()] {
        for mask in [0, 0x36, 0x5c] {
            assert!(!holds(&stack, &secret.map(|byte| byte ^ mask)));
        }
    }
}

#[test]
fn reading_root_keys_leaves_none_on_the_stack() {
    let content = base16ct::lower::encode_string(&MARKER);
    let stack = stack_after(|| drop(root_key::parse(content.as_bytes())));
    assert!(!holds(&stack, &MARKER));
}

/// The AES-256-GCM key that XAES-256-GCM derives for one envelope (C2SP, by the book).
fn message_key(key: &[u8; LEN], envelope: &[u8]) -> [u8; LEN] {
    let aes = Aes256::new(key.into());
    let mut subkey = [0; 16].into();
    aes.encrypt_block(&mut subkey);
    let doubled = u128::from_be_bytes(subkey.into());
    let subkey = (doubled << 1 ^ (doubled >> 127) * 0b1000_0111).to_be_bytes();
    let half = |number: u8| -> [u8; 16] {
        let mut block = [0; 16];
        block[..4].copy_from_slice(&[0, number, b'X', 0]);
        block[4..].copy_from_slice(&envelope[2..14]);
        let mut block = std::array::from_fn(|i| block[i] ^ subkey[i]).into();
        aes.encrypt_block(&mut block);
        block.into()
    };
    let mut derived = [0; LEN];
    derived[..16].copy_from_slice(&half(1));
    derived[16..].copy_from_slice(&half(2));
    derived
}

#[test]
fn the_message_key_is_worked_out_right() {
    let envelope = Dek::from_bytes(&OTHER).seal(b"v", &VALUE_IDENTITY).unwrap();
    let opened = Aes256Gcm::new(&message_key(&OTHER, &envelope).into()).decrypt(
        &Nonce::try_from(&envelope[14..26]).unwrap(),
        Payload { msg: &envelope[26..], aad: &VALUE_IDENTITY.encode() },
    );
    assert_eq!(opened.unwrap(), b"v");
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

// ---- the search of the stack ----

/// What `work` leaves below this frame.
#[inline(never)]
fn stack_after(work: impl FnOnce()) -> Vec<u8> {
    const DEPTH: usize = 128 * 1024;
    let mut copy = vec![0; DEPTH];
    clean_stack::<DEPTH>();
    call(work);
    let here = 0_u8;
    let top = black_box(&raw const here).expose_provenance();
    let bottom: *const u8 = black_box(with_exposed_provenance(top - DEPTH));
    // SAFETY: a test's thread has 2 MiB of stack, all of it mapped. What lies below this frame is
    // nothing to Rust but bytes; they are copied in one call, before anything overwrites them.
    unsafe { copy.as_mut_ptr().copy_from(bottom, DEPTH) };
    copy
}

/// Whether either half of `secret` is in `memory`.
fn holds(memory: &[u8], secret: &[u8; LEN]) -> bool {
    let (first, second) = secret.split_at(LEN / 2);
    memory.windows(LEN / 2).any(|window| window == first || window == second)
}

#[inline(never)]
fn call(work: impl FnOnce()) {
    work();
}

#[inline(never)]
fn clean_stack<const DEPTH: usize>() {
    black_box([0_u8; DEPTH]);
}
