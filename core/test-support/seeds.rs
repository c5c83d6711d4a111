//! The seeds of a fuzz target, as they are and changed in a few places: the bounded form of fuzzing that every test run has.

use std::path::Path;

/// Changed copies of each seed.
const COPIES: u64 = 60;

/// Runs the body of a target. It fails by a panic.
pub(crate) fn run(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut state = 7u64;
    let mut below = move |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end.max(1)
    };
    let mut seeds: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{} has no seeds", folder.display());
    for seed in seeds {
        let bytes = std::fs::read(seed).unwrap();
        body(&bytes);
        for _ in 0..COPIES {
            let mut copy = bytes.clone();
            for _ in 0..1 + below(3) {
                let (at, byte) = (below(copy.len()), below(256) as u8);
                match below(4) {
                    0 => copy.truncate(at),
                    1 => copy.insert(at, byte),
                    _ => copy.get_mut(at).into_iter().for_each(|it| *it = byte),
                }
            }
            body(&copy);
        }
    }
}
