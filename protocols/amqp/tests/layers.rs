//! The layers of this crate: which module may use which, and no circle of files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../core/test-support/layers.rs"]
mod layers;

use std::path::Path;

use layers::{Graph, Rule, disordered};

/// Modules from the bottom up, each with those that it uses.
const RULES: &[Rule] = &[
    ("codec", &[]),
    ("error", &["codec"]),
    ("map", &["codec", "error"]),
    ("firehose", &["codec", "error", "map"]),
    ("topology", &["error", "map"]),
    ("operator", &["codec", "error", "firehose", "map", "topology"]),
    ("events", &["error", "map", "operator"]),
    ("session", &["codec", "error", "firehose", "map", "topology"]),
    ("connection", &["codec", "map", "session"]),
    ("fuzz", &["codec", "map"]),
];

fn graph() -> Graph {
    Graph::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn modules_use_only_modules_below_them() {
    assert_eq!(graph().violations(RULES), Vec::<String>::new());
}

#[test]
fn modules_are_listed_from_the_bottom_up() {
    assert_eq!(disordered(RULES), Vec::<String>::new());
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    assert_eq!(graph().circles(), Vec::<Vec<String>>::new());
}
