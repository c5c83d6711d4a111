//! DescribeLogDirs: what lies on which disk.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 1-5, flexible 2+.
    pub struct DescribeLogDirsRequest {
        topics: Option<Vec<DescribableLogDirTopic>> [0..; null 0..],
    }

    /// Each topic that we want to describe log directories for, or null for all topics.
    pub struct DescribableLogDirTopic {
        topic: Str [0..],
        partitions: Vec<i32> [0..],
    }

    /// Versions 1-5, flexible 2+.
    pub struct DescribeLogDirsResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [3..],
        results: Vec<DescribeLogDirsResult> [0..],
    }

    /// The log directories.
    pub struct DescribeLogDirsResult {
        error_code: ErrorCode [0..],
        log_dir: Str [0..],
        topics: Vec<DescribeLogDirsTopic> [0..],
        total_bytes: i64 [4..; default -1],
        usable_bytes: i64 [4..; default -1],
        is_cordoned: bool [5..],
    }

    /// The topics.
    pub struct DescribeLogDirsTopic {
        name: Str [0..],
        partitions: Vec<DescribeLogDirsPartition> [0..],
    }

    /// The partitions.
    pub struct DescribeLogDirsPartition {
        partition_index: i32 [0..],
        partition_size: i64 [0..],
        offset_lag: i64 [0..],
        is_future_key: bool [0..],
    }
}
