//! DescribeCluster: the nodes.

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
