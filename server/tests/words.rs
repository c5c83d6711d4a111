//! Words that the project does not use, since the field has others: docs/glossary.md has the right ones.
#![allow(clippy::unwrap_used, reason = "a test's own helpers")]

use std::path::{Path, PathBuf};

/// Words not to use, each with the field's word.
const WORDS: [(&str, &str); 21] = [
    ("undertaker", "dead-letterer"),
    ("bury", "dead-letter"),
    ("buries", "dead-letters"),
    ("buried", "dead-lettered"),
    ("clockwork", "timers"),
    ("hungry", "starved"),
    ("stranger", "unauthenticated client"),
    ("strangers", "unauthenticated clients"),
    ("chores", "background tasks"),
    ("crossings", "cross-protocol delivery"),
    ("anew", "again"),
    ("whoever", "the client, the caller"),
    ("doomed", "expired, to be deleted"),
    ("mortal", "has a time to live"),
    ("mortality", "expiry"),
    ("plug", "protocol"),
    ("plugs", "protocols"),
    ("contestant", "peer"),
    ("contestants", "peers"),
    ("sabotage", "seeded bug"),
    ("patience", "timeout"),
];

/// Phrases not to use, each with what to write.
const PHRASES: [(&str, &str); 13] = [
    ("the log refuses", "log write rejected"),
    ("asked to end", "shutdown requested"),
    ("which is the most", "limit reached"),
    ("let go of", "released, dropped"),
    ("lets go of", "releases, drops"),
    ("see the module's text", "a sentence of its own"),
    ("gives the word", "requests, signals"),
    ("heard by", "routed to"),
    ("looked at", "checked, read"),
    ("on its way in", "incoming"),
    ("lies on the disk", "is on disk"),
    ("who comes", "the client that connects"),
    ("map of rooms", "map of modules"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The project's own texts: code, documentation and scripts of the tests.
fn texts(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "corpus" | "node_modules") {
                texts(&path, into);
            }
        } else if [".rs", ".md", ".py", ".toml"].iter().any(|ending| name.ends_with(ending)) {
            into.push(path);
        }
    }
}

/// What a line says that it should say otherwise.
fn complaint(line: &str) -> Option<String> {
    let line = line.to_lowercase();
    let spoken =
        |word: &&(&str, &str)| line.split(|c: char| !c.is_ascii_alphabetic()).any(|part| part == word.0);
    let said = |phrase: &&(&str, &str)| line.contains(phrase.0);
    let found = WORDS.iter().find(spoken).or_else(|| PHRASES.iter().find(said))?;
    Some(format!("`{}`: write `{}`", found.0, found.1))
}

#[test]
fn the_fields_words_are_used() {
    let mut files = Vec::new();
    texts(&root(), &mut files);
    assert!(files.len() > 100);
    let exempt = [root().join("docs/glossary.md"), root().join("server/tests/words.rs")];
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !exempt.contains(file)) {
        let text = std::fs::read_to_string(file).unwrap();
        for (number, line) in text.lines().enumerate() {
            // Names in files of earlier versions stay readable.
            if line.contains("serde(alias") {
                continue;
            }
            if let Some(complaint) = complaint(line) {
                let name = file.strip_prefix(root()).unwrap().display();
                complaints.push(format!("{name}:{}: {complaint}", number + 1));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn words_are_found_as_whole_words_in_any_case() {
    assert!(complaint("let Undertaker { .. }").is_some());
    assert!(complaint("the client is HUNGRY_now").is_some());
    assert!(complaint("a plugin is plugged in").is_none());
    assert!(complaint("// Asked to end.").is_some());
}
