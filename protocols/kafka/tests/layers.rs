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
    ("namespace_rows", &[]),
    ("coordinator", &["codec", "config", "namespace_rows", "ticket"]),
    ("namespace_node", &["config", "coordinator", "namespace_rows"]),
    ("access", &["codec", "namespace_node"]),
    ("transactions", &["access", "codec"]),
    ("traced", &[]),
    ("node", &["access", "budget", "codec", "config", "metrics", "namespace_node"]),
    ("map", &["access", "codec", "node"]),
    ("settings", &["codec", "config", "map"]),
    ("fetch", &["access", "budget", "codec", "map", "metrics", "node", "response", "traced"]),
    ("share", &["access", "budget", "codec", "coordinator", "map", "metrics", "node", "response"]),
    ("api", &["access", "codec", "config", "coordinator", "error", "fetch", "map", "node", "response", "sasl", "settings", "share", "ticket", "traced", "transactions"]),
    ("fuzz", &["api", "codec", "map"]),
    ("session", &["access", "api", "codec", "error", "fetch", "metrics", "node", "response", "sasl", "share", "ticket"]),
    ("connection", &["budget", "error", "node", "sasl", "session"]),
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
