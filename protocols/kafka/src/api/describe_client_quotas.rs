//! DescribeClientQuotas: the quotas of users, client ids and addresses (KIP-546, KIP-612).

use std::ops::RangeInclusive;

use inver_access::{EntityName, Operation, canonical_ip};

use super::client_quotas::{self, CLIENT_ID, IP, USER, invalid};
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Refusal, Reply, message};
use super::scram_users;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-1, flexible 1+.
    pub struct DescribeClientQuotasRequest {
        components: Vec<ComponentData> [0..],
        strict: bool [0..],
    }

    /// Filter components to apply to quota entities.
    pub struct ComponentData {
        entity_type: Str [0..],
        match_type: i8 [0..],
        match_: Option<Str> [0..; null 0..],
    }

    /// Versions 0-1, flexible 1+.
    pub struct DescribeClientQuotasResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        entries: Option<Vec<EntryData>> [0..; null 0..],
    }

    /// A result entry.
    pub struct EntryData {
        entity: Vec<EntityData> [0..],
        values: Vec<ValueData> [0..],
    }

    /// The quota entity description.
    pub struct EntityData {
        entity_type: Str [0..],
        entity_name: Option<Str> [0..; null 0..],
    }

    /// The quota values for the entity.
    pub struct ValueData {
        key: Str [0..],
        value: f64 [0..],
    }
}

/// How a component matches names.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

/// The DescribeClientQuotas API.
pub struct DescribeClientQuotas;

impl Handler for DescribeClientQuotas {
    const KEY: i16 = 48;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 1;

    const LENGTH: Length = Length::Long;

    type Request = DescribeClientQuotasRequest;
    type Response = DescribeClientQuotasResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeClientQuotasRequest,
    ) -> Reply<DescribeClientQuotasResponse> {
        let described =
            scram_users::check(cx, Operation::DescribeConfigs).and_then(|()| describe(cx, &request));
        Reply::now(match described {
            Ok(entries) => DescribeClientQuotasResponse {
                entries: Some(entries),
                ..DescribeClientQuotasResponse::default()
            },
            Err((error_code, text)) => DescribeClientQuotasResponse {
                error_code,
                error_message: message(text),
                ..DescribeClientQuotasResponse::default()
            },
        })
    }
}

/// Which names a component matches.
enum Matched {
    Exactly(String),
    Default,
    Any,
}

fn describe(
    cx: &RequestContext<'_>,
    request: &DescribeClientQuotasRequest,
) -> Result<Vec<EntryData>, Refusal> {
    let mut wanted: Vec<(&str, Matched)> = Vec::new();
    for component in &request.components {
        let kind: &str = &component.entity_type;
        if !matches!(kind, USER | CLIENT_ID | IP) {
            return Err((
                ErrorCode::UNSUPPORTED_VERSION,
                format!("Custom entity type '{kind}' not supported"),
            ));
        }
        if wanted.iter().any(|(known, _)| *known == kind) {
            return Err(invalid(format!("Duplicate filter component entity type '{kind}'")));
        }
        let matched = match (component.match_type, &component.match_) {
            (EXACT, Some(name)) if kind == IP => Matched::Exactly(canonical_ip(name)),
            (EXACT, Some(name)) => Matched::Exactly(name.to_string()),
            (DEFAULT, None) => Matched::Default,
            (SPECIFIED, None) => Matched::Any,
            _ => return Err(invalid("a filter component has an unknown or wrong match type")),
        };
        wanted.push((kind, matched));
    }
    if wanted.iter().any(|(kind, _)| *kind == IP) && wanted.len() > 1 {
        return Err(invalid("Invalid entity filter component combination: ip with user or client-id"));
    }
    let quotas = cx.node.broker.quotas().list();
    let entries = quotas.iter().filter_map(|(entity, limits, _)| {
        let (parts, values) = (client_quotas::parts(entity), client_quotas::values(entity, limits));
        let has = |(kind, matched): &(&str, Matched)| {
            parts.iter().any(|(of, name)| of == kind && matches(matched, name))
        };
        let is_wanted = wanted.iter().all(has) && (!request.strict || parts.len() == wanted.len());
        (is_wanted && !parts.is_empty() && !values.is_empty()).then(|| entry(&parts, values))
    });
    Ok(entries.collect())
}

fn matches(matched: &Matched, name: &EntityName) -> bool {
    match (matched, name) {
        (Matched::Exactly(wanted), EntityName::Named(name)) => name == wanted,
        (Matched::Default, EntityName::Default) | (Matched::Any, _) => true,
        _ => false,
    }
}

fn entry(parts: &[(&'static str, &EntityName)], values: Vec<(&'static str, f64)>) -> EntryData {
    let part = |(kind, name): &(&'static str, &EntityName)| EntityData {
        entity_type: Str::from_static(kind),
        entity_name: match name {
            EntityName::Default => None,
            EntityName::Named(name) => Some(Str::from(name.as_str())),
        },
    };
    let value = |(key, value)| ValueData { key: Str::from_static(key), value };
    EntryData { entity: parts.iter().map(part).collect(), values: values.into_iter().map(value).collect() }
}
