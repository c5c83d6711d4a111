//! The layers of this crate: which module may use which.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../../core/test-support/layers.rs"]
mod layers;

use std::path::Path;

use layers::{Graph, Rule};

/// From the bottom to the top.
const RULES: &[Rule] = &[
    ("codec", &[]),
    ("config", &[]),
    ("watch", &[]),
    ("map", &["codec"]),
    ("session", &["codec", "config", "map", "watch"]),
];

#[test]
fn modules_use_only_modules_below_them() {
    let graph = Graph::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert_eq!(graph.violations(RULES), Vec::<String>::new());
    assert_eq!(layers::disordered(RULES), Vec::<String>::new());
}

#[test]
fn only_files_of_the_session_use_each_other_in_a_circle() {
    let graph = Graph::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let circles = graph.circles();
    let others: Vec<_> =
        circles.iter().filter(|files| !files.iter().all(|file| file.contains("session"))).collect();
    assert!(others.is_empty(), "{others:?}");
}
