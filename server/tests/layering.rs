//! Dependencies run one way: server → protocols → driver → broker → access, storage. Protocols never import each other, and the
//! core names none of them.
#![allow(clippy::unwrap_used, reason = "a test's own helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Words that the core must not say outside comments.
const PROTOCOL_WORDS: [&str; 6] = ["kafka", "mqtt", "amqp", "rabbit", "mosquitto", "paho"];

/// Names that clients see and that every namespace has, and names of stored properties; they are vocabulary, not knowledge
/// of a protocol.
const VOCABULARY: [&str; 8] = [
    "amq.rabbitmq.event",
    "amq.rabbitmq.trace",
    "mqtt-topic",
    "mqtt-qos",
    "mqtt-retain",
    "mqtt-payload-format",
    "mqtt-inbox-for",
    "amqp-properties",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Each member of the workspace: its folder below the root, and the members it depends on in any way.
fn members() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    packages
        .iter()
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            let folder = manifest.parent().unwrap().strip_prefix(root().canonicalize().unwrap()).unwrap();
            let dependencies = package["dependencies"].as_array().unwrap();
            let inner = dependencies.iter().map(|dependency| dependency["name"].as_str().unwrap());
            let inner = inner.filter(|name| names.contains(name)).map(str::to_string).collect();
            (package["name"].as_str().unwrap().to_string(), (folder.display().to_string(), inner))
        })
        .collect()
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// A layer's crates may depend on these.
fn allowed(folder: &str, name: &str) -> BTreeSet<String> {
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    match folder.split('/').next().unwrap() {
        "core"
            if ["inver-access", "inver-journal", "inver-settings", "inver-storage", "inver-store"]
                .contains(&name) =>
        {
            set(&[])
        }
        "core" => set(&["inver-access", "inver-storage"]),
        "protocols" if name == "inver-driver" => set(&["inver-broker", "inver-storage"]),
        // An example shows what a protocol needs.
        "protocols" | "examples" => {
            set(&["inver-access", "inver-broker", "inver-driver", "inver-settings", "inver-storage"])
        }
        _ => members().into_keys().collect(),
    }
}

#[test]
fn dependencies_run_one_way() {
    for (name, (folder, dependencies)) in members() {
        let allowed = allowed(&folder, &name);
        // A crate depends on itself where its tests need one of its features.
        let wrong: Vec<_> = dependencies.difference(&allowed).filter(|other| **other != name).collect();
        assert!(wrong.is_empty(), "{name} in {folder} must not depend on {wrong:?}");
    }
}

#[test]
fn a_crate_is_named_after_its_folder() {
    for (name, (folder, _)) in members() {
        let last = folder.rsplit('/').next().unwrap();
        if folder.starts_with("core/") || folder.starts_with("protocols/") {
            assert_eq!(name, format!("inver-{last}"));
        }
    }
}

#[test]
fn the_core_and_the_driver_name_no_protocol() {
    let mut files = Vec::new();
    rust_files(&root().join("core"), &mut files);
    rust_files(&root().join("protocols/driver"), &mut files);
    assert!(!files.is_empty());
    // A dialect of permissions has the name of the broker that it comes from.
    files.retain(|file| !file.starts_with(root().join("core/access/src/dialect")));
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let mut code = line.split("//").next().unwrap().to_lowercase();
            VOCABULARY.iter().for_each(|name| code = code.replace(name, ""));
            let said = PROTOCOL_WORDS.iter().find(|word| code.contains(**word));
            assert!(said.is_none(), "{}:{}: the core says `{}`", file.display(), number + 1, said.unwrap());
        }
    }
}

#[test]
fn protocols_do_not_name_each_other_s_crates() {
    let protocols: Vec<(String, String)> = members()
        .into_iter()
        .filter(|(_, (folder, _))| folder.starts_with("protocols/") && folder != "protocols/driver")
        .map(|(name, (folder, _))| (name.replace('-', "_"), folder))
        .collect();
    assert!(protocols.len() >= 3);
    for (own, folder) in &protocols {
        let mut files = Vec::new();
        rust_files(&root().join(folder), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for (other, _) in protocols.iter().filter(|(other, _)| other != own) {
                assert!(!text.contains(other.as_str()), "{} names {other}", file.display());
            }
        }
    }
}

#[test]
fn only_the_list_of_protocols_names_their_crates() {
    let mut files = Vec::new();
    rust_files(&root().join("server/src"), &mut files);
    for file in files.iter().filter(|file| !file.ends_with("server/src/protocols.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for name in ["kafka", "mqtt", "amqp", "stream"] {
            let crate_name = format!("inver_{name}");
            assert!(!text.contains(&crate_name), "{} names {crate_name}", file.display());
        }
    }
}
