//! What the fuzzers once found or thought worth keeping holds today: every file of `fuzz/seeds` and
//! `fuzz/corpus`, replayed. To look for more: `make fuzz`.
#![allow(clippy::unwrap_used)]

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::{fs, path::Path};

#[test]
fn every_kept_input_holds() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (name, target) in fuzz::TARGETS {
        assert!(fuzz.join(format!("fuzz_targets/{name}.rs")).exists(), "{name} is not fuzzed");
        target(b"");
        let mut count = 0;
        for kept in ["seeds", "corpus"] {
            for file in fs::read_dir(fuzz.join(kept).join(name)).unwrap() {
                let file = file.unwrap().path();
                let data = fs::read(&file).unwrap();
                // The harness shows this if the next line panics.
                println!("{}", file.display());
                target(&data);
                count += 1;
            }
        }
        assert!(count > 5, "{count} inputs for {name}");
    }
    let targets = fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count();
    assert_eq!(targets, fuzz::TARGETS.len(), "a target that is not replayed");
}
