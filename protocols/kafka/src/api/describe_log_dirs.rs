//! DescribeLogDirs: the sizes of partitions on disk. All partitions share one log, which is the only directory.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map::partition::partition_index;
use crate::settings::node::LOG_DIR;

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

/// The DescribeLogDirs API.
pub struct DescribeLogDirs;

/// Stands for a size that is not known.
const UNKNOWN_BYTES: i64 = -1;

impl Handler for DescribeLogDirs {
    const KEY: i16 = 35;
    const VERSIONS: RangeInclusive<i16> = 1..=5;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = DescribeLogDirsRequest;
    type Response = DescribeLogDirsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeLogDirsRequest,
    ) -> Reply<DescribeLogDirsResponse> {
        if let Err(error_code) = cx.access.check_cluster(Operation::Describe) {
            return Reply::now(DescribeLogDirsResponse { error_code, ..DescribeLogDirsResponse::default() });
        }
        let wanted: Vec<(String, Option<Vec<i32>>)> = match request.topics {
            None => cx.namespace().topics().iter().map(|topic| (topic.name().to_owned(), None)).collect(),
            Some(topics) => {
                topics.into_iter().map(|topic| (topic.topic.to_string(), Some(topic.partitions))).collect()
            }
        };
        let mut topics = Vec::with_capacity(wanted.len());
        for (name, indexes) in wanted {
            let Some(topic) = cx.namespace().topic(&name) else { continue };
            let partitions = match indexes {
                None => topic.partitions(),
                Some(indexes) => {
                    let indexes = indexes.into_iter().filter_map(partition_index);
                    indexes.filter_map(|index| topic.partition(index)).collect()
                }
            };
            let described = partitions.iter().map(|partition| DescribeLogDirsPartition {
                partition_index: partition.index() as i32,
                partition_size: i64::try_from(partition.stream().bytes()).unwrap_or(i64::MAX),
                offset_lag: 0,
                is_future_key: false,
            });
            topics.push(DescribeLogDirsTopic { name: name.into(), partitions: described.collect() });
        }
        let log = cx.node.broker.log();
        let wire =
            |bytes: Option<u64>| bytes.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(UNKNOWN_BYTES);
        let results = vec![DescribeLogDirsResult {
            log_dir: LOG_DIR.into(),
            topics,
            total_bytes: wire(log.disk_size_bytes()),
            usable_bytes: wire(log.free_bytes().map(|(free, _)| free)),
            ..DescribeLogDirsResult::default()
        }];
        Reply::now(DescribeLogDirsResponse { results, ..DescribeLogDirsResponse::default() })
    }
}
