//! Permission rules of the configuration: `[[permissions]]`.

use inver_access::{Rule, RuleText};
use inver_settings::{Form, Setting};
use serde::de::{Deserialize, Deserializer, Error};
use toml_edit::{Array, InlineTable, Value};

/// The permission rules of the configuration, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConfiguredPermissions(pub(crate) Vec<RuleText>);

impl ConfiguredPermissions {
    /// The rules as access control knows them.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        self.0.iter().filter_map(|text| text.rules().ok()).flatten().collect()
    }
}

impl Setting for ConfiguredPermissions {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let texts: Vec<RuleText> = Vec::deserialize(value)?;
        for (at, text) in texts.iter().enumerate() {
            if text.id.is_some() || text.dialect.is_some() {
                return Err(D::Error::custom(
                    "a permission of the configuration has no `id` and no `dialect`",
                ));
            }
            text.rules().map_err(|error| D::Error::custom(format_args!("permission {}: {error}", at + 1)))?;
        }
        Ok(ConfiguredPermissions(texts))
    }

    fn show(&self) -> String {
        self.0.iter().map(show).collect::<Array>().to_string()
    }
}

fn show(text: &RuleText) -> Value {
    let mut table = InlineTable::new();
    let host = text.host.map(|host| host.to_string());
    let fields = [
        ("user", &text.user),
        ("tag", &text.tag),
        ("namespace", &text.namespace),
        ("kind", &text.kind),
        ("name", &text.name),
        ("prefix", &text.prefix),
        ("filter", &text.filter),
        ("regex", &text.regex),
        ("dotted", &text.dotted),
        ("exchange", &text.exchange),
        ("effect", &text.effect),
        ("host", &host),
    ];
    if text.anyone {
        table.insert("anyone", true.into());
    }
    if text.anonymous {
        table.insert("anonymous", true.into());
    }
    for (name, value) in fields {
        if let Some(value) = value {
            table.insert(name, value.into());
        }
    }
    table.insert("operations", text.operations.iter().collect::<Array>().into());
    table.into()
}
