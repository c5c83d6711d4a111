//! AlterReplicaLogDirs: moves partitions to another log directory (KIP-113). There is only one, so a move to it
//! succeeds and any other fails.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::settings::node::LOG_DIR;

messages! {
    /// Versions 1-2, flexible 2+.
    pub struct AlterReplicaLogDirsRequest {
        dirs: Vec<AlterReplicaLogDir> [0..],
    }

    /// The alterations to make for each directory.
    pub struct AlterReplicaLogDir {
        path: Str [0..],
        topics: Vec<AlterReplicaLogDirTopic> [0..],
    }

    /// The topics to add to the directory.
    pub struct AlterReplicaLogDirTopic {
        name: Str [0..],
        partitions: Vec<i32> [0..],
    }

    /// Versions 1-2, flexible 2+.
    pub struct AlterReplicaLogDirsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AlterReplicaLogDirTopicResult> [0..],
    }

    /// The results for each topic.
    pub struct AlterReplicaLogDirTopicResult {
        topic_name: Str [0..],
        partitions: Vec<AlterReplicaLogDirPartitionResult> [0..],
    }

    /// The results for each partition.
    pub struct AlterReplicaLogDirPartitionResult {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
    }
}

/// The AlterReplicaLogDirs API.
pub struct AlterReplicaLogDirs;

impl Handler for AlterReplicaLogDirs {
    const KEY: i16 = 34;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = AlterReplicaLogDirsRequest;
    type Response = AlterReplicaLogDirsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: AlterReplicaLogDirsRequest,
    ) -> Reply<AlterReplicaLogDirsResponse> {
        let checked = cx.access.check_cluster(Operation::Alter);
        let mut results = Vec::new();
        for dir in request.dirs {
            for topic in dir.topics {
                let partitions = topic.partitions.into_iter().map(|partition_index| {
                    let error_code = match cx.partition(&topic.name, partition_index) {
                        _ if checked.is_err() => checked.err().unwrap_or_default(),
                        None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                        Some(_) if dir.path == *LOG_DIR => ErrorCode::NONE,
                        Some(_) => ErrorCode::LOG_DIR_NOT_FOUND,
                    };
                    AlterReplicaLogDirPartitionResult { partition_index, error_code }
                });
                let partitions = partitions.collect();
                results.push(AlterReplicaLogDirTopicResult { topic_name: topic.name, partitions });
            }
        }
        Reply::now(AlterReplicaLogDirsResponse { throttle_time_ms: 0, results })
    }
}
