//! AlterReplicaLogDirs: replicas are moved to another folder.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

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
