//! The declarations are those of Kafka's schema.
//!
//! `schema.txt` lists the messages of the schema published in the `kafka-clients` jar (4.4.0, `common/message`):
//! `# key message versions flexible-versions`, `module.Structure`, and a line a field: name, type, versions,
//! nullable versions, tag. Where a request and its response have different structures of one name, that of the response bears
//! another one: `alter_client_quotas.AlteredEntryData`.

use super::*;

const SCHEMA: &str = include_str!("schema.txt");

/// Tagged fields that a broker of one node does not need: skipped when read, never written.
const LEFT_OUT: &[&str] = &[
    "NodeEndpoints",
    "CurrentLeader",
    "DivergingEpoch",
    "SnapshotId",
    "ReplicaState",
    "ReplicaDirectoryId",
    "FetchPartition.HighWatermark",
    "FetchRequest.ClusterId",
];

/// Structures of the fields in [`LEFT_OUT`].
const LEFT_OUT_STRUCTURES: &[&str] = &[
    "produce.LeaderIdAndEpoch",
    "produce.NodeEndpoint",
    "fetch.ReplicaState",
    "fetch.EpochEndOffset",
    "fetch.LeaderIdAndEpoch",
    "fetch.SnapshotId",
    "fetch.NodeEndpoint",
];

/// `0..`, `1..=4`, `3..=3` in the schema's form: `0+`, `1-4`, `3`.
fn versions(range: &str) -> String {
    let range = range.replace(' ', "");
    match range.split_once("..=") {
        Some((from, to)) if from == to => from.into(),
        Some((from, to)) => format!("{from}-{to}"),
        None if range.is_empty() => "-".into(),
        None => range.replace("..", "+"),
    }
}

fn plain(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

/// Every declared structure, named `module.Structure` as in `schema.txt`.
fn declared() -> Vec<StructureSchema> {
    fn add<T: Wire>(module: &str, message: &str, into: &mut Vec<StructureSchema>) {
        let mut structures = Vec::new();
        T::collect_structures(&mut structures);
        for (place, mut structure) in structures.into_iter().enumerate() {
            // A message can share its declaration with another one, whose name it then bears.
            let name = if place == 0 { message } else { &structure.name };
            structure.name = format!("{module}.{name}");
            if !into.contains(&structure) {
                into.push(structure);
            }
        }
    }
    let mut all = Vec::new();
    macro_rules! run {
        ($($module:ident::$name:ident;)*) => {
            $(
                add::<<crate::api::$module::$name as Handler>::Request>(
                    stringify!($module), concat!(stringify!($name), "Request"), &mut all,
                );
                add::<<crate::api::$module::$name as Handler>::Response>(
                    stringify!($module), concat!(stringify!($name), "Response"), &mut all,
                );
            )*
        };
    }
    for_each_api!(run);
    all
}

#[test]
fn declarations_match_the_published_schema() {
    let mut published: Vec<(String, Vec<Vec<&str>>)> = Vec::new();
    for line in SCHEMA.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(field) => published.last_mut().unwrap().1.push(field.split(' ').collect()),
            None => published.push((line.to_owned(), Vec::new())),
        }
    }
    let declared = declared();
    for StructureSchema { name, fields } in &declared {
        let (_, expected) = published.iter().find(|(structure, _)| structure == name).expect(name);
        let short = name.split('.').next_back().unwrap();
        let expected = expected.iter().filter(|field| {
            field[4] == "-"
                || !LEFT_OUT.iter().any(|out| *out == field[0] || *out == format!("{short}.{}", field[0]))
        });
        let mut expected: Vec<String> =
            expected.map(|f| format!("{} {} {} {} {}", plain(f[0]), f[1], f[2], f[3], f[4])).collect();
        // The schema may list a tagged field anywhere; the others must keep their order.
        expected.sort_by_key(|field| !field.ends_with(" -"));
        let actual: Vec<String> = fields
            .iter()
            .map(|f| {
                let tag = f.tag.map_or("-".to_owned(), |tag| tag.to_string());
                format!("{} {} {} {} {tag}", plain(f.name), f.kind, versions(f.versions), versions(f.null))
            })
            .collect();
        assert_eq!(actual, expected, "{name}");
    }
    let missing: Vec<&str> = published
        .iter()
        .map(|(structure, _)| structure.as_str())
        .filter(|structure| !declared.iter().any(|declared| declared.name == *structure))
        .filter(|structure| !LEFT_OUT_STRUCTURES.contains(structure))
        .collect();
    assert_eq!(missing, [""; 0], "not declared");
}

#[test]
fn versions_answered_are_versions_of_the_schema() {
    for line in SCHEMA.lines().filter(|line| line.starts_with('#') && line.contains("Request")) {
        let words: Vec<&str> = line.split(' ').collect();
        let api = crate::api::find(words[1].parse().unwrap()).expect(line);
        assert_eq!(format!("{}Request", api.name), words[2]);
        let (min, max) = words[3].split_once('-').unwrap_or((words[3], words[3]));
        let (min, max): (i16, i16) = (min.parse().unwrap(), max.parse().unwrap());
        assert!(api.version_max <= max, "{line}");
        assert!(api.version_min >= min || *api == Api::Produce, "{line}");
        let flexible = words[4].strip_suffix('+').map_or(max + 1, |from| from.parse().unwrap());
        assert_eq!(api.flexible_from, flexible, "{line}");
    }
}
