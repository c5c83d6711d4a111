//! The layers of this crate: which module may use which, and no circle of more than three files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue has failed")]

#[path = "../../test-support/layers.rs"]
mod layers;

use std::path::Path;

use layers::{Graph, Rule};

/// Files in one circle.
const CIRCLE_FILES_MAX: usize = 3;

/// From the bottom to the top.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    ("clock", &[]),
    ("gate", &[]),
    ("ids", &[]),
    ("medium", &[]),
    ("memory", &["gate"]),
    ("metrics", &[]),
    ("registry", &[]),
    ("seeded_bugs", &[]),
    ("sync", &[]),
    ("batch", &["memory"]),
    ("error", &["ids"]),
    ("format", &["batch", "seeded_bugs"]),
    ("compaction", &["format", "ids"]),
    ("cursor", &["error", "ids"]),
    ("options", &["error"]),
    ("read", &["batch", "error", "format", "ids", "medium", "registry", "seeded_bugs"]),
    ("scan", &["error", "format", "medium", "seeded_bugs"]),
    ("relay", &["seeded_bugs", "sync"]),
    ("watermarks", &["error", "seeded_bugs", "sync"]),
    ("space", &["gate", "medium", "options"]),
    ("allocator", &["clock", "format", "medium", "options", "read", "seeded_bugs", "space"]),
    ("sealing", &["read"]),
    ("stream", &["batch", "error", "format", "ids", "read", "seeded_bugs"]),
    ("checkpoint", &["cursor", "error", "format", "medium", "seeded_bugs", "stream"]),
    ("directory", &["compaction", "cursor", "registry", "stream"]),
    ("entry", &["batch", "compaction", "cursor", "format", "ids", "stream"]),
    ("fuzz", &["batch", "checkpoint", "compaction", "format"]),
    ("inspect", &["batch", "checkpoint", "error", "format", "ids", "medium", "read", "scan", "stream"]),
    ("intake", &["batch", "clock", "cursor", "directory", "entry", "error", "format", "ids", "medium", "options", "read", "seeded_bugs", "stream", "watermarks"]),
    ("writer", &["allocator", "batch", "clock", "entry", "error", "format", "intake", "medium", "memory", "metrics", "options", "read", "relay", "sealing", "seeded_bugs", "space", "stream"]),
    ("waiter", &["error", "ids", "intake", "watermarks", "writer"]),
    ("durability", &["allocator", "clock", "error", "intake", "metrics", "waiter"]),
    ("maintenance", &["allocator", "batch", "checkpoint", "clock", "compaction", "cursor", "directory", "durability", "entry", "error", "format", "ids", "intake", "medium", "metrics", "options", "read", "sealing", "seeded_bugs", "space", "stream", "waiter", "writer"]),
    ("recovery", &["allocator", "batch", "checkpoint", "clock", "cursor", "directory", "error", "format", "ids", "intake", "medium", "options", "read", "scan", "sealing", "seeded_bugs", "space", "stream"]),
    ("open", &["allocator", "clock", "durability", "error", "intake", "maintenance", "medium", "memory", "metrics", "options", "read", "recovery", "sealing", "space", "stream", "waiter", "writer"]),
    ("backup", &["error", "format", "ids", "maintenance", "medium", "open"]),
    ("stats", &["open"]),
    ("log", &["backup", "clock", "compaction", "cursor", "entry", "error", "gate", "ids", "intake", "maintenance", "medium", "memory", "open", "options", "stats", "stream", "writer"]),
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

fn module(path: &str, source: &str) -> (Vec<String>, String) {
    (path.split("::").map(str::to_owned).collect(), source.to_owned())
}

#[test]
fn forbidden_uses_and_circles_are_reported() {
    let graph = Graph::parse(&[
        module("a", "use crate::b::{One, c::{Two, self}};"),
        module("b", "fn f() { crate::d::g(); } // crate::a"),
        module("b::c", "use super::One;\n#[cfg(test)]\nmod tests { use crate::a; }"),
        module("d", "use crate::{a, b as other};"),
    ]);
    let rules: &[Rule] = &[("a", &["b"]), ("b", &[]), ("d", &["a", "b", "e"]), ("f", &[])];
    let violations = ["b must not use d", "d may use e, but does not", "f has a rule, but does not exist"];
    assert_eq!(graph.violations(rules), violations);
    assert_eq!(graph.circles(), [["a", "b", "b::c", "d"]]);
    assert_eq!(graph.violations(&rules[1..])[0], "a has no rule");
    assert_eq!(
        layers::disordered(rules),
        ["a is listed above b, which it uses", "d is listed above e, which it uses"]
    );
}
