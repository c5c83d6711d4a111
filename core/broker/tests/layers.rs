//! The layers of this crate: which module may use which, and no circle of more than three files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "../../test-support/layers.rs"]
mod layers;

use std::path::Path;

use layers::{Graph, Rule};

/// Files in one circle.
const CIRCLE_FILES_MAX: usize = 3;

/// From the bottom to the top: a module uses only modules listed before it. `testing` is for unit tests and may use all
/// that they need.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    ("seeded_bugs", &[]),
    ("address", &[]),
    ("bag", &[]),
    ("clock", &["seeded_bugs"]),
    ("closing", &[]),
    ("completion", &[]),
    ("limits", &[]),
    ("listener", &[]),
    ("maps", &[]),
    ("network", &[]),
    ("ordered", &[]),
    ("peek", &[]),
    ("reclaim", &[]),
    ("removal", &[]),
    ("source", &[]),
    ("sync", &[]),
    ("mailbox", &["closing", "seeded_bugs", "sync"]),
    ("telemetry", &[]),
    ("tables", &[]),
    ("value", &[]),
    ("waiting", &[]),
    ("events", &["clock", "telemetry", "value", "waiting"]),
    ("line_limit", &["network", "telemetry"]),
    ("audit", &["clock", "events", "line_limit", "telemetry", "waiting"]),
    ("quota", &["clock", "completion", "limits", "source", "tables"]),
    ("timers", &["clock"]),
    ("traces", &["clock", "completion"]),
    ("context", &["audit", "clock", "maps", "reclaim", "telemetry", "timers"]),
    ("connections", &["closing", "context", "events", "listener", "mailbox", "network", "quota", "timers"]),
    ("access", &["address", "audit", "closing", "completion", "connections", "limits", "source", "tables"]),
    ("identity", &["access", "listener"]),
    ("scram", &["access", "clock", "identity"]),
    ("spec", &["access", "address", "audit", "clock", "identity", "limits", "line_limit", "traces", "value"]),
    ("trie", &["address", "bag"]),
    ("bindings", &["access", "address", "bag", "spec", "trie", "value"]),
    ("capture", &["address", "bag", "clock", "spec", "trie"]),
    ("client_log", &["audit", "clock", "events", "identity", "line_limit", "telemetry"]),
    ("message", &["address", "spec", "traces", "value"]),
    ("rows", &["access", "spec", "tables", "value"]),
    ("batch_format", &["message", "spec"]),
    ("committed_offsets", &["completion", "limits", "rows", "seeded_bugs"]),
    ("publisher_sequences", &["completion", "limits", "rows"]),
    ("transactions", &["committed_offsets", "completion", "context", "limits", "tables"]),
    ("retained", &["address", "clock", "limits", "message", "rows"]),
    ("policy", &["limits", "spec", "value"]),
    ("subscription", &["clock", "completion", "context", "mailbox", "message", "peek", "reclaim", "rows", "seeded_bugs", "spec", "sync"]),
    ("topic", &["batch_format", "ordered", "peek", "spec"]),
    ("queue", &["context", "ordered", "policy", "seeded_bugs", "spec", "subscription", "topic"]),
    ("receivers", &["batch_format", "queue", "subscription"]),
    ("history", &["message", "value"]),
    ("seen", &["completion", "spec", "value"]),
    ("exchange", &["address", "bindings", "completion", "history", "message", "policy", "queue", "receivers", "seen", "spec", "value"]),
    ("fan_out", &["receivers", "subscription"]),
    ("write_batch", &["completion", "fan_out", "history", "message", "queue", "receivers", "seeded_bugs", "seen", "subscription"]),
    ("limit_checks", &["completion", "message", "queue", "receivers", "spec", "write_batch"]),
    ("namespace", &["access", "address", "audit", "bag", "batch_format", "bindings", "capture", "clock", "committed_offsets", "completion", "context", "events", "exchange", "history", "limit_checks", "limits", "maps", "message", "ordered", "peek", "policy", "publisher_sequences", "queue", "receivers", "removal", "retained", "rows", "seeded_bugs", "spec", "subscription", "telemetry", "topic", "traces", "transactions", "value", "write_batch"]),
    ("router", &["access", "address", "bindings", "completion", "exchange", "history", "message", "namespace", "queue", "receivers", "seen", "spec", "topic", "value", "write_batch"]),
    ("publisher", &["access", "address", "completion", "exchange", "fan_out", "history", "limit_checks", "limits", "message", "namespace", "queue", "receivers", "router", "seeded_bugs", "spec", "subscription", "traces", "write_batch"]),
    ("preview", &["address", "message", "namespace", "publisher", "queue", "router", "spec", "value"]),
    ("delayed", &["completion", "message", "namespace", "peek", "publisher", "spec", "subscription"]),
    ("deadletter", &["completion", "delayed", "message", "namespace", "publisher", "seeded_bugs", "spec", "subscription"]),
    ("produce", &["access", "address", "completion", "limit_checks", "limits", "message", "namespace", "peek", "publisher", "publisher_sequences", "queue", "receivers", "router", "spec", "subscription", "topic", "transactions", "write_batch"]),
    ("session", &["access", "address", "audit", "bindings", "completion", "context", "exchange", "limits", "mailbox", "maps", "message", "namespace", "ordered", "peek", "publisher", "queue", "receivers", "removal", "retained", "rows", "seeded_bugs", "spec", "subscription", "topic", "value"]),
    ("broker", &["access", "audit", "client_log", "clock", "closing", "completion", "connections", "context", "deadletter", "events", "identity", "limits", "listener", "mailbox", "namespace", "quota", "removal", "retained", "rows", "scram", "session", "spec", "telemetry", "timers", "topic"]),
    ("protocol", &["broker", "listener"]),
    ("testing", &["audit", "clock", "completion", "context", "message", "namespace", "retained", "spec", "subscription", "telemetry"]),
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
fn no_circle_has_more_than_three_files() {
    let circles = graph().circles();
    let large: Vec<_> = circles.iter().filter(|circle| circle.len() > CIRCLE_FILES_MAX).collect();
    assert!(large.is_empty(), "{large:?}");
}
