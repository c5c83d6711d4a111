//! DescribeClientQuotas: the quotas of clients (KIP-546). There are none.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::{Reply, message};
use crate::access;
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

/// The DescribeClientQuotas API.
pub struct DescribeClientQuotas;

impl Handler for DescribeClientQuotas {
    const KEY: i16 = 48;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 1;

    type Request = DescribeClientQuotasRequest;
    type Response = DescribeClientQuotasResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        _: DescribeClientQuotasRequest,
    ) -> Reply<DescribeClientQuotasResponse> {
        if let Err(error_code) = cx.access.check_cluster(Operation::DescribeConfigs) {
            return Reply::now(DescribeClientQuotasResponse {
                error_code,
                error_message: message(access::text(error_code)),
                ..DescribeClientQuotasResponse::default()
            });
        }
        Reply::now(DescribeClientQuotasResponse {
            entries: Some(Vec::new()),
            ..DescribeClientQuotasResponse::default()
        })
    }
}
