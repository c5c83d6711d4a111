//! OffsetCommit, OffsetFetch, OffsetDelete: how far groups have come.

use std::sync::Arc;

use inver_broker::{CommittedOffset, Topic, now_ms};
use inver_storage::Lsn;

use super::{Call, Session, partition_index};
use crate::codec::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use crate::codec::api::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::codec::api::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::codec::error_code::ErrorCode;
use crate::codec::reader::Reader;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::error::ConnectionError;
use crate::session::group::State;

/// Version from which OffsetCommit and OffsetFetch name topics by identity.
const BY_ID_SINCE: i16 = 10;

/// A position as a request has it, its topic found.
type Wanted = (Arc<Topic>, u32, CommittedOffset);

impl Session {
    pub(super) fn offset_commit(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let mut request: OffsetCommitRequest = call.read()?;
        let metadata_bytes_max = self.node.config.limits.offset_metadata_bytes_max;
        let now_ms = now_ms();
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in std::mem::take(&mut request.topics) {
            let known = self.topic(call.version(), BY_ID_SINCE, &topic.name, topic.topic_id);
            let unknown = match call.version() {
                BY_ID_SINCE.. => ErrorCode::UNKNOWN_TOPIC_ID,
                _ => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            };
            let mut check = |partition: OffsetCommitRequestPartition| {
                let known = known.as_ref().ok_or(unknown)?;
                let index = partition_index(partition.partition_index)
                    .filter(|index| *index < known.partition_count())
                    .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
                if partition.committed_metadata.as_ref().is_some_and(|text| text.len() > metadata_bytes_max) {
                    return Err(ErrorCode::OFFSET_METADATA_TOO_LARGE);
                }
                let position = CommittedOffset {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.map(|text| text.to_string()),
                    committed_ms: now_ms,
                };
                wanted.push((known.clone(), index, position));
                Ok(())
            };
            let partitions = topic.partitions.into_iter().map(|partition| {
                let partition_index = partition.partition_index;
                let error_code = check(partition).err().unwrap_or(ErrorCode::NONE);
                OffsetCommitResponsePartition { partition_index, error_code }
            });
            let partitions = partitions.collect();
            topics.push(OffsetCommitResponseTopic { name: topic.name, topic_id: topic.topic_id, partitions });
        }
        let mut lsn = None;
        match self.commit(&request, &wanted, call.now) {
            Ok(committed) => lsn = Some(committed),
            // Those that had no error of their own share the group's.
            Err(code) => {
                let partitions = topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut());
                let sound = partitions.filter(|partition| partition.error_code.is_none());
                sound.for_each(|partition| partition.error_code = code);
            }
        }
        self.answer_after(&call, &OffsetCommitResponse { throttle_time_ms: 0, topics }, lsn);
        Ok(())
    }

    fn commit(
        &self,
        request: &OffsetCommitRequest,
        wanted: &[Wanted],
        now: std::time::Instant,
    ) -> Result<Lsn, ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::INVALID_GROUP_ID);
        }
        let (namespace, log) = (&self.node.namespace, self.node.broker.log());
        let positions: Vec<(&str, u32, CommittedOffset)> =
            wanted.iter().map(|(topic, index, position)| (topic.name(), *index, position.clone())).collect();
        if namespace.committed_offsets().room_for(&request.group_id, &positions).is_err() {
            return Err(ErrorCode::INVALID_COMMIT_OFFSET_SIZE);
        }
        self.node.coordinator.commit(
            &request.group_id,
            &request.member_id,
            request.group_instance_id.as_ref(),
            request.generation_id_or_member_epoch,
            now,
            || match positions.is_empty() {
                true => Ok(Lsn::default()),
                false => namespace.committed_offsets().commit(log, &request.group_id, &positions),
            },
        )
    }

    pub(super) fn offset_fetch(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: OffsetFetchRequest = call.read()?;
        let version = call.version();
        if version < 8 {
            let topics = request.topics.map(|topics| {
                let named = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
                    name: topic.name,
                    topic_id: Uuid::ZERO,
                    partition_indexes: topic.partition_indexes,
                });
                named.collect()
            });
            let group = OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() };
            let group = self.fetch_group(version, group);
            let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
                name: topic.name,
                partitions: topic.partitions.into_iter().map(older).collect(),
            });
            let topics = topics.collect();
            let error_code = group.error_code;
            self.answer(&call, &OffsetFetchResponse { topics, error_code, ..OffsetFetchResponse::default() });
            return Ok(());
        }
        let groups = request.groups.into_iter().map(|group| self.fetch_group(version, group)).collect();
        self.answer(&call, &OffsetFetchResponse { groups, ..OffsetFetchResponse::default() });
        Ok(())
    }

    fn fetch_group(&mut self, version: i16, group: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
        let namespace = self.node.namespace.clone();
        let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
        match group.topics {
            Some(wanted) => {
                for topic in wanted {
                    let known = match version {
                        BY_ID_SINCE.. => {
                            self.topic_by_id(topic.topic_id).map(|topic| topic.name().to_owned())
                        }
                        _ => Some(topic.name.to_string()),
                    };
                    let partitions = topic.partition_indexes.into_iter().map(|index| match &known {
                        None => partition(index, None, ErrorCode::UNKNOWN_TOPIC_ID),
                        Some(name) => {
                            let position = partition_index(index).and_then(|index| {
                                namespace.committed_offsets().get(&group.group_id, name, index)
                            });
                            partition(index, position, ErrorCode::NONE)
                        }
                    });
                    let partitions = partitions.collect();
                    topics.push(OffsetFetchResponseTopics {
                        name: topic.name,
                        topic_id: topic.topic_id,
                        partitions,
                    });
                }
            }
            None => {
                for (name, index, position) in namespace.committed_offsets().of_group(&group.group_id) {
                    let known = partition(index as i32, Some(position), ErrorCode::NONE);
                    match topics.last_mut() {
                        Some(topic) if topic.name == *name => topic.partitions.push(known),
                        _ => topics.push(OffsetFetchResponseTopics {
                            topic_id: namespace.topic(&name).map_or(Uuid::ZERO, |topic| Uuid(topic.id().0)),
                            name: name.into(),
                            partitions: vec![known],
                        }),
                    }
                }
            }
        }
        OffsetFetchResponseGroup { group_id: group.group_id, topics, error_code: ErrorCode::NONE }
    }

    pub(super) fn offset_delete(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: OffsetDeleteRequest = call.read()?;
        let coordinator = &self.node.coordinator;
        let in_use = coordinator.look(&request.group_id, |group| match group.state() {
            State::Empty | State::Dead => Ok(Vec::new()),
            _ if group.protocol_type().is_some_and(|kind| *kind == "consumer") => {
                let protocol = group.protocol().cloned().unwrap_or_default();
                Ok(group.members().flat_map(|member| subscribed_topics(member.metadata(&protocol))).collect())
            }
            _ => Err(ErrorCode::NON_EMPTY_GROUP),
        });
        let has_positions = self.node.namespace.committed_offsets().has_group(&request.group_id);
        let in_use: Vec<Str> = match in_use {
            None if !has_positions => return self.refuse_offset_delete(&call, ErrorCode::GROUP_ID_NOT_FOUND),
            Some(Err(code)) => return self.refuse_offset_delete(&call, code),
            Some(Ok(topics)) => topics,
            None => Vec::new(),
        };
        let doomed = |name: &str, index: u32| {
            let of_topic = request.topics.iter().filter(|topic| topic.name == *name);
            let mut partitions = of_topic.flat_map(|topic| topic.partitions.iter());
            let named = partitions.any(|partition| partition_index(partition.partition_index) == Some(index));
            named && !in_use.iter().any(|topic| *topic == *name)
        };
        let log = self.node.broker.log();
        let lsn = match self.node.namespace.committed_offsets().delete(log, &request.group_id, doomed) {
            Ok(completion) => completion.lsn(),
            Err(_) => return self.refuse_offset_delete(&call, ErrorCode::COORDINATOR_NOT_AVAILABLE),
        };
        let topics = request.topics.iter().map(|topic| {
            let known = self.node.namespace.topic(&topic.name);
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition_index(partition.partition_index);
                let exists =
                    known.as_ref().zip(index).is_some_and(|(topic, index)| index < topic.partition_count());
                let error_code = match exists {
                    _ if in_use.contains(&topic.name) => ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC,
                    true => ErrorCode::NONE,
                    false => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                };
                OffsetDeleteResponsePartition { partition_index: partition.partition_index, error_code }
            });
            OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() }
        });
        let response = OffsetDeleteResponse { topics: topics.collect(), ..OffsetDeleteResponse::default() };
        self.answer_after(&call, &response, lsn);
        Ok(())
    }

    fn refuse_offset_delete(&mut self, call: &Call, error_code: ErrorCode) -> Result<(), ConnectionError> {
        self.answer(call, &OffsetDeleteResponse { error_code, ..OffsetDeleteResponse::default() });
        Ok(())
    }
}

fn partition(
    partition_index: i32,
    position: Option<CommittedOffset>,
    error_code: ErrorCode,
) -> OffsetFetchResponsePartitions {
    match position {
        Some(position) => OffsetFetchResponsePartitions {
            partition_index,
            committed_offset: position.offset,
            committed_leader_epoch: position.leader_epoch,
            metadata: Some(position.metadata.map(Str::from).unwrap_or_default()),
            error_code,
        },
        None => OffsetFetchResponsePartitions {
            partition_index,
            committed_offset: -1,
            committed_leader_epoch: -1,
            metadata: Some(Str::default()),
            error_code,
        },
    }
}

fn older(partition: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    }
}

/// The topics that a consumer said it wants: the front of its metadata is a version and their names. What cannot be
/// read names none.
fn subscribed_topics(metadata: bytes::Bytes) -> Vec<Str> {
    let mut reader = Reader::new(metadata);
    let mut read = || {
        reader.i16().ok()?;
        let count = reader.count(false, 2).ok()??;
        (0..count).map(|_| reader.string(false).ok()?).collect::<Option<Vec<Str>>>()
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_a_subscription() {
        let metadata = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(subscribed_topics(metadata[..].into()), ["a", "bc"]);
        assert!(subscribed_topics(metadata[..11].into()).is_empty());
        assert!(subscribed_topics(bytes::Bytes::new()).is_empty());
    }
}
