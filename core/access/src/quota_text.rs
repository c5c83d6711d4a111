//! Quotas as people write them: in the configuration, the HTTP API and the command line.

use serde::{Deserialize, Serialize};

use crate::quota::{EntityName, QuotaEntity, QuotaError, QuotaLimits};

/// A quota in its written form: what it is for, and its limits. `*` as a name stands for everyone without a quota of his own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaText {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The client id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The address that connections come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Bytes from clients, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in_per_second: Option<u64>,
    /// Bytes to clients, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out_per_second: Option<u64>,
    /// Messages from clients, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_in_per_second: Option<u64>,
    /// Messages to clients, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_out_per_second: Option<u64>,
    /// Time of the broker's threads, percent of one thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_time_percent: Option<f64>,
    /// New connections, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_second: Option<u64>,
    /// Partitions created and deleted, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutations_per_second: Option<f64>,
}

impl QuotaText {
    /// The written form of a quota.
    #[must_use]
    pub fn of(entity: &QuotaEntity, limits: &QuotaLimits) -> QuotaText {
        let text = |name: &EntityName| Some(name.text().to_owned());
        let named = match entity {
            QuotaEntity::Client { user, client_id } => QuotaText {
                user: user.as_ref().and_then(text),
                client_id: client_id.as_ref().and_then(text),
                ..QuotaText::default()
            },
            QuotaEntity::Namespace(name) => QuotaText { namespace: text(name), ..QuotaText::default() },
            QuotaEntity::Ip(name) => QuotaText { ip: text(name), ..QuotaText::default() },
        };
        QuotaText {
            bytes_in_per_second: limits.bytes_in,
            bytes_out_per_second: limits.bytes_out,
            messages_in_per_second: limits.messages_in,
            messages_out_per_second: limits.messages_out,
            request_time_percent: limits.request_time_percent,
            connections_per_second: limits.connections,
            mutations_per_second: limits.mutations,
            ..named
        }
    }

    /// What it is for.
    pub fn entity(&self) -> Result<QuotaEntity, QuotaError> {
        let name = |text: &Option<String>| text.as_deref().map(EntityName::parse);
        let (user, client_id) = (name(&self.user), name(&self.client_id));
        let entity = match (name(&self.namespace), name(&self.ip)) {
            (None, None) => QuotaEntity::Client { user, client_id },
            (Some(namespace), None) if user.is_none() && client_id.is_none() => {
                QuotaEntity::Namespace(namespace)
            }
            (None, Some(ip)) if user.is_none() && client_id.is_none() => QuotaEntity::of_ip(ip),
            _ => return Err(QuotaError::Mixed),
        };
        entity.check()?;
        Ok(entity)
    }

    /// Its limits.
    #[must_use]
    pub fn limits(&self) -> QuotaLimits {
        QuotaLimits {
            bytes_in: self.bytes_in_per_second,
            bytes_out: self.bytes_out_per_second,
            messages_in: self.messages_in_per_second,
            messages_out: self.messages_out_per_second,
            request_time_percent: self.request_time_percent,
            connections: self.connections_per_second,
            mutations: self.mutations_per_second,
        }
    }

    /// What it is for and its limits, checked.
    pub fn quota(&self) -> Result<(QuotaEntity, QuotaLimits), QuotaError> {
        let (entity, limits) = (self.entity()?, self.limits());
        limits.check(&entity)?;
        if limits.is_empty() {
            return Err(QuotaError::NoLimit);
        }
        Ok((entity, limits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_for_a_client_a_namespace_or_an_address() {
        let text = |user: &str, client_id: &str, namespace: &str, ip: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            QuotaText {
                user: some(user),
                client_id: some(client_id),
                namespace: some(namespace),
                ip: some(ip),
                connections_per_second: Some(1),
                ..QuotaText::default()
            }
        };
        for text in
            [text("ann", "*", "", ""), text("", "c", "", ""), text("", "", "*", ""), text("", "", "", "::1")]
        {
            let (entity, limits) = text.quota().unwrap();
            assert_eq!(QuotaText::of(&entity, &limits), text);
        }
        assert_eq!(text("ann", "", "red", "").quota(), Err(QuotaError::Mixed));
        assert_eq!(text("", "", "red", "::1").quota(), Err(QuotaError::Mixed));
        assert_eq!(text("", "", "", "").quota(), Err(QuotaError::NoEntity));
        let without = QuotaText { connections_per_second: None, ..text("ann", "", "", "") };
        assert_eq!(without.quota(), Err(QuotaError::NoLimit));
    }
}
