//! AlterClientQuotas: sets and removes limits of users, client ids and addresses (KIP-546, KIP-612).

use std::ops::RangeInclusive;

use inver_access::{Operation, QuotaEntity, QuotaLimits};
use inver_broker::{AuditKind, Completion, QuotasError, Source};

use super::client_quotas;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Refusal, Reply, message};
use super::scram_users;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-1, flexible 1+.
    pub struct AlterClientQuotasRequest {
        entries: Vec<EntryData> [0..],
        validate_only: bool [0..],
    }

    /// The quota configuration entries to alter.
    pub struct EntryData {
        entity: Vec<EntityData> [0..],
        ops: Vec<OpData> [0..],
    }

    /// The quota entity to alter.
    pub struct EntityData {
        entity_type: Str [0..],
        entity_name: Option<Str> [0..; null 0..],
    }

    /// An individual quota configuration entry to alter.
    pub struct OpData {
        key: Str [0..],
        value: f64 [0..],
        remove: bool [0..],
    }

    /// Versions 0-1, flexible 1+.
    pub struct AlterClientQuotasResponse {
        throttle_time_ms: i32 [0..],
        entries: Vec<AlteredEntryData> [0..],
    }

    /// The quota configuration entries to alter.
    pub struct AlteredEntryData {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        entity: Vec<EntityData> [0..],
    }
}

/// The AlterClientQuotas API.
pub struct AlterClientQuotas;

impl Handler for AlterClientQuotas {
    const KEY: i16 = 49;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 1;

    const LENGTH: Length = Length::Long;

    type Request = AlterClientQuotasRequest;
    type Response = AlterClientQuotasResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: AlterClientQuotasRequest,
    ) -> Reply<AlterClientQuotasResponse> {
        let checked = scram_users::check(cx, Operation::AlterConfigs);
        let mut completion = Completion::Now;
        let mut entries = Vec::with_capacity(request.entries.len());
        for entry in request.entries {
            let altered = checked.clone().and_then(|()| alter(cx, &entry, request.validate_only));
            let (error_code, error_message) = match altered {
                Ok(altered) => {
                    completion = completion.and(altered);
                    (ErrorCode::NONE, None)
                }
                Err((code, text)) => (code, message(text)),
            };
            entries.push(AlteredEntryData { error_code, error_message, entity: entry.entity });
        }
        Reply::Response(AlterClientQuotasResponse { throttle_time_ms: 0, entries }, completion)
    }
}

fn alter(cx: &RequestContext<'_>, entry: &EntryData, validate_only: bool) -> Result<Completion, Refusal> {
    let parts = entry.entity.iter().map(|part| (&*part.entity_type, part.entity_name.as_deref()));
    let entity = client_quotas::entity(parts)?;
    let quotas = cx.node.broker.quotas();
    // Checked on a copy first: all changes of an entry are made, or none.
    let present = quotas.get(&entity);
    let mut wanted = present.map(|(limits, _)| limits).unwrap_or_default();
    apply(&mut wanted, &entity, &entry.ops)?;
    wanted.check(&entity).map_err(|error| refusal(&error.into()))?;
    if validate_only {
        return match present {
            Some((_, Source::Configuration)) => Err(refusal(&QuotasError::ReadOnly(entity))),
            _ => Ok(Completion::Now),
        };
    }
    let (_, completion) = quotas
        .update(&entity, |limits| {
            // It could be applied above, whatever else was changed meanwhile.
            let _applied = apply(limits, &entity, &entry.ops);
        })
        .map_err(|error| refusal(&error))?;
    cx.namespace().audit(AuditKind::Access, "alter", "quota", &entity.to_string());
    Ok(completion)
}

fn apply(limits: &mut QuotaLimits, entity: &QuotaEntity, ops: &[OpData]) -> Result<(), Refusal> {
    ops.iter()
        .try_for_each(|op| client_quotas::set(limits, entity, &op.key, (!op.remove).then_some(op.value)))
}

fn refusal(error: &QuotasError) -> Refusal {
    let code = match error {
        QuotasError::ReadOnly(_) | QuotasError::Limit(_) => ErrorCode::POLICY_VIOLATION,
        QuotasError::Invalid(_) => ErrorCode::INVALID_REQUEST,
        QuotasError::Log(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    };
    (code, error.to_string())
}
