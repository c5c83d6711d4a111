//! DescribeCluster: the nodes of the cluster. There is one.

use std::ops::RangeInclusive;

use super::authorized_operations;
use super::context::RequestContext;
use super::handler::Handler;
use super::reply::{Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-2, flexible 0+.
    pub struct DescribeClusterRequest {
        include_cluster_authorized_operations: bool [0..],
        endpoint_type: i8 [1..; default 1],
        include_fenced_brokers: bool [2..],
    }

    /// Versions 0-2, flexible 0+.
    pub struct DescribeClusterResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        endpoint_type: i8 [1..; default 1],
        cluster_id: Str [0..],
        controller_id: i32 [0..; default -1],
        brokers: Vec<DescribeClusterBroker> [0..],
        cluster_authorized_operations: i32 [0..; default i32::MIN],
    }

    /// Each broker in the response.
    pub struct DescribeClusterBroker {
        broker_id: i32 [0..],
        host: Str [0..],
        port: i32 [0..],
        rack: Option<Str> [0..; null 0..],
        is_fenced: bool [2..],
    }
}

/// The DescribeCluster API.
pub struct DescribeCluster;

/// Endpoint type of brokers, as opposed to controllers (KIP-919).
const BROKERS: i8 = 1;

impl Handler for DescribeCluster {
    const KEY: i16 = 60;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE_FROM: i16 = 0;

    type Request = DescribeClusterRequest;
    type Response = DescribeClusterResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeClusterRequest,
    ) -> Reply<DescribeClusterResponse> {
        if request.endpoint_type != BROKERS {
            return Reply::now(DescribeClusterResponse {
                error_code: ErrorCode::UNSUPPORTED_ENDPOINT_TYPE,
                error_message: message("there are no controllers to connect to, only brokers"),
                ..DescribeClusterResponse::default()
            });
        }
        let (host, port) = cx.advertised_address();
        let broker_id = cx.config().node_id;
        Reply::now(DescribeClusterResponse {
            cluster_id: cx.node.cluster_id.clone(),
            controller_id: broker_id,
            brokers: vec![DescribeClusterBroker { broker_id, host, port, rack: None, is_fenced: false }],
            cluster_authorized_operations: authorized_operations::cluster(
                cx.access,
                request.include_cluster_authorized_operations,
            ),
            ..DescribeClusterResponse::default()
        })
    }
}
