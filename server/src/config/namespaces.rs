//! Namespaces of the configuration: `[[namespaces]]`.

use std::collections::HashSet;

use inver_broker::{NamespaceLimits, NamespaceSpec, check_namespace};
use inver_settings::{Form, Setting};
use serde::de::{Deserialize, Deserializer, Error};
use toml_edit::{Array, InlineTable, Value};

/// The namespaces of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConfiguredNamespaces(pub(crate) Vec<(String, NamespaceSpec)>);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Vec<String>,
    default_queue_type: Option<String>,
    #[serde(default)]
    protected: bool,
    connections_max: Option<u32>,
    queues_max: Option<u32>,
    topics_max: Option<u32>,
    sessions_max: Option<u32>,
    bytes_max: Option<u64>,
}

impl From<Table> for (String, NamespaceSpec) {
    fn from(table: Table) -> (String, NamespaceSpec) {
        let limits = NamespaceLimits {
            connections_max: table.connections_max,
            queues_max: table.queues_max,
            topics_max: table.topics_max,
            sessions_max: table.sessions_max,
            bytes_max: table.bytes_max,
        };
        let spec = NamespaceSpec {
            description: table.description,
            tags: table.tags,
            default_queue_type: table.default_queue_type,
            limits,
            is_protected: table.protected,
        };
        (table.name, spec)
    }
}

impl Setting for ConfiguredNamespaces {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let all: Vec<(String, NamespaceSpec)> =
            Vec::<Table>::deserialize(value)?.into_iter().map(Into::into).collect();
        let mut names = HashSet::new();
        for (name, spec) in &all {
            check_namespace(name, spec).map_err(D::Error::custom)?;
            if !names.insert(name) {
                return Err(D::Error::custom(format_args!("namespace `{name}` is there twice")));
            }
        }
        Ok(ConfiguredNamespaces(all))
    }

    fn show(&self) -> String {
        self.0.iter().map(|(name, spec)| show(name, spec)).collect::<Array>().to_string()
    }
}

fn show(name: &str, spec: &NamespaceSpec) -> Value {
    let mut table = InlineTable::new();
    table.insert("name", name.into());
    if !spec.description.is_empty() {
        table.insert("description", spec.description.as_str().into());
    }
    if !spec.tags.is_empty() {
        table.insert("tags", spec.tags.iter().collect::<Array>().into());
    }
    if let Some(queue_type) = &spec.default_queue_type {
        table.insert("default_queue_type", queue_type.into());
    }
    if spec.is_protected {
        table.insert("protected", true.into());
    }
    let limits = &spec.limits;
    let counts = [
        ("connections_max", limits.connections_max.map(u64::from)),
        ("queues_max", limits.queues_max.map(u64::from)),
        ("topics_max", limits.topics_max.map(u64::from)),
        ("sessions_max", limits.sessions_max.map(u64::from)),
        ("bytes_max", limits.bytes_max),
    ];
    for (key, count) in counts {
        if let Some(count) = count {
            // TOML has signed numbers.
            table.insert(key, i64::try_from(count).unwrap_or(i64::MAX).into());
        }
    }
    table.into()
}
