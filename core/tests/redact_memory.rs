//! Masking when memory is short, and of statements that are made to take long: it ends, and never by
//! ending the process, which is what Rust does when an allocation that must not fail fails.
#![allow(clippy::unwrap_used)]

use meshhook_secrets_core::redact::{MASK, line::Line, sql, sql::Also};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr::null_mut,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Refuses what is larger than `LARGEST`, and remembers how much was in use at most.
struct Scarce;

static LARGEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static MEMORY: Scarce = Scarce;

// SAFETY: everything is left to the system's allocator, or refused.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST.load(Relaxed) {
            return null_mut();
        }
        PEAK.fetch_max(USED.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as we were called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as we were called.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// One test, for the allocator is everybody's.
#[test]
fn any_statement_is_masked_with_any_memory() {
    // As many tokens, and as many different literals, as there can be.
    let many: String = (0..100_000).map(|n| format!("'{n:07}',")).collect();
    let escaped =
        format!("E'{}', '{{\"a\":\"{}\"}}'", "\\''".repeat(30_000), "\\u0041x".repeat(30_000));
    let same =
        (0..900).map(|n| format!("'{n:07}',")).collect::<String>() + &"'0000899',".repeat(50_000);
    let quotes = "\"\"".repeat(50_000);
    let commas = ",".repeat(50_000);
    // It grows: three asterisks for a digit.
    let digits = "1,".repeat(75_000);
    let audited = format!("AUDIT: SESSION,1,1,READ,SELECT,,,\"{quotes}\",<none>");
    let audited_more = format!("AUDIT: {commas}");
    let planned =
        format!("duration: 1.0 ms  plan:\nQuery Text: {many}\nQuery Parameters: $1 = '{many}");
    let context = format!("SQL statement \"{many}\"\nunnamed portal with parameters: $1 = 'x'");

    let before = USED.load(Relaxed);
    PEAK.store(before, Relaxed);
    let text = sql::mask(many.as_bytes(), Also::default());
    assert!(!text.windows(7).any(|part| part == b"0012345"));
    let peak = PEAK.load(Relaxed) - before;
    assert!(peak < 3 * many.len(), "{peak} bytes for a statement of {}", many.len());
    drop(text);

    for largest in [usize::MAX, 1 << 18, 1 << 14, 4096] {
        for statement in [&many, &escaped, &same, &quotes, &commas, &digits] {
            for (format, message) in [
                ("AUDIT: %s", &audited),
                ("AUDIT: %s", &audited_more),
                ("duration: %.3f ms  plan:\n%s", &planned),
                ("x \"%s\" of %s", statement),
                ("statement: %s", statement),
            ] {
                let bytes = Some(statement.as_bytes());
                let line = Line {
                    state: *b"42601",
                    format: format.as_bytes(),
                    message: Some(message.as_bytes()),
                    detail: Some(context.as_bytes()),
                    detail_log: Some(b"parameters: $1 = 'x'"),
                    hint: bytes,
                    context: Some(context.as_bytes()),
                    internal_query: bytes,
                    statement: bytes,
                    position: statement.len(),
                    parameters: &[statement.as_bytes().into(), escaped.as_bytes().into()],
                    ..Line::default()
                };
                LARGEST.store(largest, Relaxed);
                let masked = line.mask();
                LARGEST.store(usize::MAX, Relaxed);
                let text = masked.statement.unwrap();
                assert!(
                    largest > 1 << 18 || text == MASK || text.len() < largest,
                    "{}",
                    text.len()
                );
                assert!(masked.position <= 2 * statement.len());
            }
        }
    }

    // Looking for known values gives up when there are too many, and reads no further.
    for statement in [
        (0..1_000_000).map(|n| format!("'{n:07}',")).collect::<String>(),
        (0..900).map(|n| format!("'{n:07}',")).collect::<String>()
            + &"'0000899',".repeat(1_000_000),
    ] {
        let line = Line {
            format: b"%s",
            message: Some(b"0000001"),
            statement: Some(statement.as_bytes()),
            ..Line::default()
        };
        let start = Instant::now();
        sql::mask(statement.as_bytes(), Also::default());
        let plain = start.elapsed();
        let start = Instant::now();
        assert_eq!(line.mask().message.unwrap(), MASK);
        let took = start.elapsed();
        assert!(
            took < 4 * plain + Duration::from_millis(500),
            "{took:?}, and {plain:?} for masking"
        );
    }
}
