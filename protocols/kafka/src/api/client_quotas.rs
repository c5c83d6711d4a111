//! What the APIs of client quotas share: Kafka's names for the broker's entities and limits (KIP-546, KIP-612).

use inver_access::{EntityName, QuotaEntity, QuotaKind, QuotaLimits};

use super::reply::Refusal;
use crate::codec::error_code::ErrorCode;

pub(super) const USER: &str = "user";
pub(super) const CLIENT_ID: &str = "client-id";
pub(super) const IP: &str = "ip";

const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
const REQUEST_PERCENTAGE: &str = "request_percentage";
const CONTROLLER_MUTATION_RATE: &str = "controller_mutation_rate";
const CONNECTION_CREATION_RATE: &str = "connection_creation_rate";

pub(super) fn invalid(text: impl Into<String>) -> Refusal {
    (ErrorCode::INVALID_REQUEST, text.into())
}

/// The entity of types and names; no name is the default.
pub(super) fn entity<'a>(
    parts: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<QuotaEntity, Refusal> {
    let (mut user, mut client_id, mut ip) = (None, None, None);
    for (kind, name) in parts {
        let slot = match kind {
            USER => &mut user,
            CLIENT_ID => &mut client_id,
            IP => &mut ip,
            other => return Err(invalid(format!("Unhandled client quota entity type: {other}"))),
        };
        let name = name.map_or(EntityName::Default, |name| EntityName::Named(name.to_owned()));
        if slot.replace(name).is_some() {
            return Err(invalid(format!("Invalid empty client quota entity, duplicate entity type: {kind}")));
        }
    }
    match (user, client_id, ip) {
        (None, None, Some(ip)) => Ok(QuotaEntity::of_ip(ip)),
        (_, _, Some(_)) => Err(invalid("Invalid quota entity combination, ip entity should not be combined")),
        (None, None, None) => Err(invalid("Invalid empty client quota entity")),
        (user, client_id, None) => Ok(QuotaEntity::Client { user, client_id }),
    }
}

/// The types and names of an entity; those of namespaces have none in Kafka.
pub(super) fn parts(entity: &QuotaEntity) -> Vec<(&'static str, &EntityName)> {
    match entity {
        QuotaEntity::Client { user, client_id } => {
            let user = user.iter().map(|name| (USER, name));
            user.chain(client_id.iter().map(|name| (CLIENT_ID, name))).collect()
        }
        QuotaEntity::Ip(name) => vec![(IP, name)],
        QuotaEntity::Namespace(_) => Vec::new(),
    }
}

/// The limits that Kafka has names for.
pub(super) fn values(entity: &QuotaEntity, limits: &QuotaLimits) -> Vec<(&'static str, f64)> {
    let values = match entity {
        QuotaEntity::Ip(_) => vec![(CONNECTION_CREATION_RATE, limits.rate(QuotaKind::Connections))],
        _ => vec![
            (PRODUCER_BYTE_RATE, limits.rate(QuotaKind::BytesIn)),
            (CONSUMER_BYTE_RATE, limits.rate(QuotaKind::BytesOut)),
            (REQUEST_PERCENTAGE, limits.request_time_percent),
            (CONTROLLER_MUTATION_RATE, limits.mutations),
        ],
    };
    values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Sets or removes a limit.
pub(super) fn set(
    limits: &mut QuotaLimits,
    entity: &QuotaEntity,
    key: &str,
    value: Option<f64>,
) -> Result<(), Refusal> {
    let is_ip = matches!(entity, QuotaEntity::Ip(_));
    let whole = || value.map(|value| whole(key, value)).transpose();
    match (key, is_ip) {
        (PRODUCER_BYTE_RATE, false) => limits.bytes_in = whole()?,
        (CONSUMER_BYTE_RATE, false) => limits.bytes_out = whole()?,
        (REQUEST_PERCENTAGE, false) => limits.request_time_percent = value,
        (CONNECTION_CREATION_RATE, true) => limits.connections = whole()?,
        (CONTROLLER_MUTATION_RATE, false) => limits.mutations = value,
        _ => return Err(invalid(format!("Invalid configuration key {key}"))),
    }
    Ok(())
}

fn whole(key: &str, value: f64) -> Result<u64, Refusal> {
    // 2^53: above it not every whole number is one.
    if value.fract() != 0.0 || !(1.0..=9_007_199_254_740_992.0).contains(&value) {
        return Err(invalid(format!("Configuration {key} must be a whole number above 0")));
    }
    Ok(value as u64)
}
