//! The layers of this crate: which module may use which. No files form a circle.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../../core/test-support/layers.rs"]
mod layers;

use std::path::Path;

use layers::{Graph, Rule};

/// From the bottom to the top.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    ("budget", &[]),
    ("codec", &[]),
    ("config", &[]),
    ("metrics", &["codec"]),
    ("error", &["codec"]),
    ("sasl", &["codec"]),
    ("ticket", &["codec"]),
    ("response", &["codec", "metrics"]),
    ("coordinator", &["codec", "config", "ticket"]),
    ("node", &["budget", "codec", "config", "coordinator", "metrics"]),
    ("map", &["codec", "node"]),
    ("settings", &["codec", "config", "map"]),
    ("fetch", &["budget", "codec", "map", "metrics", "node", "response"]),
    ("api", &["codec", "config", "coordinator", "error", "fetch", "map", "node", "response", "sasl", "settings", "ticket"]),
    ("fuzz", &["api", "codec", "map"]),
    ("session", &["api", "codec", "error", "fetch", "metrics", "node", "response", "sasl", "ticket"]),
    ("connection", &["budget", "error", "metrics", "node", "sasl", "session"]),
];

fn graph() -> Graph {
    Graph::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn modules_use_only_modules_below_them() {
    assert_eq!(graph().violations(RULES), Vec::<String>::new());
    assert_eq!(layers::disordered(RULES), Vec::<String>::new());
}

#[test]
fn no_files_form_a_circle() {
    assert_eq!(graph().circles(), Vec::<Vec<String>>::new());
}
