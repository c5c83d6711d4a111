//! Quotas of the configuration: `[[quotas]]`.

use inver_access::{QuotaEntity, QuotaLimits, QuotaText};
use inver_settings::{Form, Setting};
use serde::de::{Deserialize, Deserializer, Error};
use toml_edit::{Array, InlineTable, Value};

/// The quotas of the configuration, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ConfiguredQuotas(pub(crate) Vec<QuotaText>);

impl ConfiguredQuotas {
    /// The quotas as the broker knows them.
    pub(crate) fn quotas(&self) -> Vec<(QuotaEntity, QuotaLimits)> {
        self.0.iter().filter_map(|text| text.quota().ok()).collect()
    }
}

impl Setting for ConfiguredQuotas {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let texts: Vec<QuotaText> = Vec::deserialize(value)?;
        let mut entities = std::collections::BTreeSet::new();
        for (text, at) in texts.iter().zip(1..) {
            let (entity, _) =
                text.quota().map_err(|error| D::Error::custom(format_args!("quota {at}: {error}")))?;
            if !entities.insert(entity.clone()) {
                return Err(D::Error::custom(format_args!("quota {at}: {entity} is there twice")));
            }
        }
        Ok(ConfiguredQuotas(texts))
    }

    fn show(&self) -> String {
        self.0.iter().map(show).collect::<Array>().to_string()
    }
}

fn show(text: &QuotaText) -> Value {
    let mut table = InlineTable::new();
    let names = [
        ("user", &text.user),
        ("client_id", &text.client_id),
        ("namespace", &text.namespace),
        ("ip", &text.ip),
    ];
    for (name, value) in names {
        if let Some(value) = value {
            table.insert(name, value.into());
        }
    }
    let limits = [
        ("bytes_in_per_second", text.bytes_in_per_second),
        ("bytes_out_per_second", text.bytes_out_per_second),
        ("messages_in_per_second", text.messages_in_per_second),
        ("messages_out_per_second", text.messages_out_per_second),
        ("connections_per_second", text.connections_per_second),
    ];
    for (name, value) in limits {
        if let Some(value) = value.and_then(|value| i64::try_from(value).ok()) {
            table.insert(name, value.into());
        }
    }
    let fractions = [
        ("request_time_percent", text.request_time_percent),
        ("mutations_per_second", text.mutations_per_second),
    ];
    for (name, value) in fractions {
        if let Some(value) = value {
            table.insert(name, value.into());
        }
    }
    table.into()
}
