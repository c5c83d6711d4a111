//! Requests of Kafka clients for fuzzing: few names, so that sessions meet.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use inver_kafka::api::create_topics::{CreatableTopic, CreateTopicsRequest};
use inver_kafka::api::delete_topics::DeleteTopicsRequest;
use inver_kafka::api::fetch::{FetchPartition, FetchRequest, FetchTopic};
use inver_kafka::api::heartbeat::HeartbeatRequest;
use inver_kafka::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use inver_kafka::api::leave_group::LeaveGroupRequest;
use inver_kafka::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use inver_kafka::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use inver_kafka::api::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use inver_kafka::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use inver_kafka::codec::api::Api;
use inver_kafka::codec::text::Str;
use inver_kafka::codec::wire::{Version, Wire};
use inver_kafka::{Kafka, KafkaConfig};
use inver_storage::batch::BatchBuilder;

use crate::session_fuzz::{Dialect, Script};

pub(crate) const DIALECT: Dialect =
    Dialect { protocol: || Arc::new(Kafka::new(KafkaConfig::default())), login, message };

const TOPICS: [&str; 3] = ["t", "u", "__x"];
const GROUPS: [&str; 3] = ["g", "h", ""];

/// Any version that is answered.
fn version(script: &mut Script<'_>, api: &Api) -> Version {
    let number = api.version_min + script.below((api.version_max - api.version_min + 1) as u64) as i16;
    Version { number, flexible: number >= api.flexible_from }
}

fn frame(script: &mut Script<'_>, api: &Api, body: impl FnOnce(&mut BytesMut, Version)) -> Vec<u8> {
    let version = version(script, api);
    let plain = Version { number: 0, flexible: false };
    let mut out = BytesMut::from(&[0; 4][..]);
    api.key.write(&mut out, plain);
    version.number.write(&mut out, plain);
    7i32.write(&mut out, plain);
    Str::from("fuzz").write(&mut out, plain);
    if version.flexible {
        0i8.write(&mut out, plain);
    }
    body(&mut out, version);
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.to_vec()
}

fn request<Q: Wire>(script: &mut Script<'_>, api: &Api, request: &Q) -> Vec<u8> {
    frame(script, api, |out, version| request.write(out, version))
}

fn login(script: &mut Script<'_>) -> Vec<u8> {
    frame(script, &Api::ApiVersions, |out, _| out.extend_from_slice(b"\x02a\x02b\x00"))
}

/// Records of a producer, some of them damaged.
fn records(script: &mut Script<'_>) -> Bytes {
    let mut batch = BatchBuilder::new(100);
    for _ in 0..1 + script.below(3) {
        let (key, value) = (script.bytes(3), script.bytes(20));
        batch.push(1_700_000_000_000, Some(&key), &[], Some(&value));
    }
    let mut bytes = batch.finish().bytes().to_vec();
    if script.below(4) == 0 {
        let at = script.below(bytes.len().min(255) as u64) as usize;
        bytes[at] ^= 1 << script.below(8);
    }
    bytes.into()
}

fn message(script: &mut Script<'_>) -> Vec<u8> {
    let (topic, group) = (script.pick(&TOPICS), Str::from(script.pick(&GROUPS)));
    let (index, offset) = (script.below(3) as i32, script.below(6) as i64 - 2);
    let (generation_id, member_id) = (script.below(4) as i32, Str::from(script.pick(&["", "m", "fuzz-1"])));
    match script.below(16) {
        0..3 => {
            let partition_data = vec![PartitionProduceData { index, records: Some(records(script)) }];
            let data = TopicProduceData { name: topic.into(), partition_data, ..TopicProduceData::default() };
            let acks = script.pick(&[-1, 0, 1, 2]);
            let produce =
                ProduceRequest { acks, timeout_ms: 100, topic_data: vec![data], ..ProduceRequest::default() };
            request(script, &Api::Produce, &produce)
        }
        3..5 => {
            let partition = FetchPartition {
                partition: index,
                fetch_offset: offset,
                partition_max_bytes: 1 << 16,
                ..FetchPartition::default()
            };
            let topic =
                FetchTopic { topic: topic.into(), partitions: vec![partition], ..FetchTopic::default() };
            let fetch = FetchRequest {
                max_wait_ms: script.below(20) as i32,
                min_bytes: script.below(2) as i32,
                max_bytes: 1 << 20,
                topics: vec![topic],
                ..FetchRequest::default()
            };
            request(script, &Api::Fetch, &fetch)
        }
        5 => {
            let topic = CreatableTopic {
                name: topic.into(),
                num_partitions: script.below(4) as i32 - 1,
                replication_factor: 1,
                ..CreatableTopic::default()
            };
            let create = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
            request(script, &Api::CreateTopics, &create)
        }
        6 => {
            let delete =
                DeleteTopicsRequest { topic_names: vec![topic.into()], ..DeleteTopicsRequest::default() };
            request(script, &Api::DeleteTopics, &delete)
        }
        7 => {
            let partition = ListOffsetsPartition {
                partition_index: index,
                timestamp: offset,
                ..ListOffsetsPartition::default()
            };
            let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![partition] };
            let list = ListOffsetsRequest { topics: vec![topic], ..ListOffsetsRequest::default() };
            request(script, &Api::ListOffsets, &list)
        }
        8 | 9 => {
            let protocol =
                JoinGroupRequestProtocol { name: "range".into(), metadata: script.bytes(9).into() };
            let join = JoinGroupRequest {
                group_id: group,
                session_timeout_ms: 6000,
                rebalance_timeout_ms: 100,
                member_id,
                protocol_type: "consumer".into(),
                protocols: vec![protocol],
                ..JoinGroupRequest::default()
            };
            request(script, &Api::JoinGroup, &join)
        }
        10 => {
            let assignment = SyncGroupRequestAssignment {
                member_id: member_id.clone(),
                assignment: script.bytes(9).into(),
            };
            let sync = SyncGroupRequest {
                group_id: group,
                generation_id,
                member_id,
                assignments: vec![assignment],
                ..SyncGroupRequest::default()
            };
            request(script, &Api::SyncGroup, &sync)
        }
        11 => {
            let heartbeat =
                HeartbeatRequest { group_id: group, generation_id, member_id, ..HeartbeatRequest::default() };
            request(script, &Api::Heartbeat, &heartbeat)
        }
        12 => {
            let leave = LeaveGroupRequest { group_id: group, member_id, ..LeaveGroupRequest::default() };
            request(script, &Api::LeaveGroup, &leave)
        }
        13 => {
            let partition = OffsetCommitRequestPartition {
                partition_index: index,
                committed_offset: offset,
                ..OffsetCommitRequestPartition::default()
            };
            let topic = OffsetCommitRequestTopic {
                name: topic.into(),
                partitions: vec![partition],
                ..OffsetCommitRequestTopic::default()
            };
            let commit = OffsetCommitRequest {
                group_id: group,
                generation_id_or_member_epoch: generation_id - 1,
                member_id,
                topics: vec![topic],
                ..OffsetCommitRequest::default()
            };
            request(script, &Api::OffsetCommit, &commit)
        }
        // Any request with any body.
        _ => {
            let api = &Api::ALL[script.below(Api::ALL.len() as u64) as usize];
            let body = script.bytes(60);
            frame(script, api, |out, _| out.extend_from_slice(&body))
        }
    }
}
