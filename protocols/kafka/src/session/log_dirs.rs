//! DescribeLogDirs, AlterReplicaLogDirs: what lies on the disk. There is one log for everything, so there is one folder.

use super::{Call, Session, partition_index};
use crate::codec::api::alter_replica_log_dirs::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
};
use crate::codec::api::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};
use crate::codec::error_code::ErrorCode;
use crate::error::ConnectionError;

/// What the one log is called; where it lies is nobody's business on the wire.
const LOG_DIR: &str = "log";

impl Session {
    pub(super) fn describe_log_dirs(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DescribeLogDirsRequest = call.read()?;
        let namespace = &self.node.namespace;
        let wanted: Vec<(String, Option<Vec<i32>>)> = match request.topics {
            None => namespace.topics().iter().map(|topic| (topic.name().to_owned(), None)).collect(),
            Some(topics) => {
                topics.into_iter().map(|topic| (topic.topic.to_string(), Some(topic.partitions))).collect()
            }
        };
        let mut topics = Vec::with_capacity(wanted.len());
        for (name, partitions) in wanted {
            let Some(topic) = namespace.topic(&name) else { continue };
            let partitions = match partitions {
                None => topic.partitions(),
                Some(list) => {
                    list.into_iter().filter_map(partition_index).filter_map(|i| topic.partition(i)).collect()
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
        let log_dir = LOG_DIR.into();
        let results = vec![DescribeLogDirsResult { log_dir, topics, ..DescribeLogDirsResult::default() }];
        self.answer(&call, &DescribeLogDirsResponse { results, ..DescribeLogDirsResponse::default() });
        Ok(())
    }

    /// Everything is where it can be.
    pub(super) fn alter_replica_log_dirs(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: AlterReplicaLogDirsRequest = call.read()?;
        let mut results = Vec::new();
        for dir in request.dirs {
            for topic in dir.topics {
                let partitions = topic.partitions.into_iter().map(|partition_index| {
                    let error_code = match self.has_partition(&topic.name, partition_index) {
                        false => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                        true if dir.path == *LOG_DIR => ErrorCode::NONE,
                        true => ErrorCode::LOG_DIR_NOT_FOUND,
                    };
                    AlterReplicaLogDirPartitionResult { partition_index, error_code }
                });
                let partitions = partitions.collect();
                results.push(AlterReplicaLogDirTopicResult { topic_name: topic.name, partitions });
            }
        }
        self.answer(&call, &AlterReplicaLogDirsResponse { throttle_time_ms: 0, results });
        Ok(())
    }
}
