//! Metadata: the node, the topics and the leaders of their partitions. Creates topics on request of the client.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use inver_access::Operation;
use inver_broker::{Completion, Identity, Topic, TopicConfig, TopicError, TopicId, TopicSpec};

use super::authorized_operations;
use super::context::RequestContext;
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::{Frame, FrameWriter};
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::{Uuid, Wire, write_length, write_no_tagged_fields};
use crate::config::KafkaConfig;
use crate::map;
use crate::node::LEADER_EPOCH;
use crate::settings;

messages! {
    /// Versions 0-13, flexible 9+.
    pub struct MetadataRequest {
        topics: Option<Vec<MetadataRequestTopic>> [0..; null 1..],
        allow_auto_topic_creation: bool [4..; default true],
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }

    /// The topics to fetch metadata for.
    pub struct MetadataRequestTopic {
        topic_id: Uuid [10..],
        name: Option<Str> [0..; null 10..],
    }

    /// Versions 0-13, flexible 9+.
    pub struct MetadataResponse {
        throttle_time_ms: i32 [3..],
        brokers: Vec<MetadataResponseBroker> [0..],
        cluster_id: Option<Str> [2..; null 2..],
        controller_id: i32 [1..; default -1],
        topics: Vec<MetadataResponseTopic> [0..],
        cluster_authorized_operations: i32 [8..=10; default i32::MIN],
        error_code: ErrorCode [13..],
    }

    /// A list of brokers present in the cluster.
    pub struct MetadataResponseBroker {
        node_id: i32 [0..],
        host: Str [0..],
        port: i32 [0..],
        rack: Option<Str> [1..; null 1..],
    }

    /// Each topic in the response.
    pub struct MetadataResponseTopic {
        error_code: ErrorCode [0..],
        name: Option<Str> [0..; null 12..],
        topic_id: Uuid [10..],
        is_internal: bool [1..],
        partitions: Vec<MetadataResponsePartition> [0..],
        topic_authorized_operations: i32 [8..; default i32::MIN],
    }

    /// Each partition in the topic.
    pub struct MetadataResponsePartition {
        error_code: ErrorCode [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [7..; default -1],
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        offline_replicas: Vec<i32> [5..],
    }
}

/// Topics, and partitions, that are described within a turn. A response with more is made on another thread.
const TOPICS_IN_A_TURN: usize = 100;
const PARTITIONS_IN_A_TURN: usize = 1000;

/// The Metadata API.
pub struct Metadata;

impl Handler for Metadata {
    const KEY: i16 = 3;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const FLEXIBLE_FROM: i16 = 9;

    type Request = MetadataRequest;
    type Response = MetadataResponse;

    fn is_long(cx: &RequestContext<'_>, request: &MetadataRequest) -> bool {
        let count = |topic: &Arc<Topic>| topic.partition_count() as usize;
        let partitions: usize = match request.topics.as_deref().filter(|_| !is_of_all(cx, request)) {
            None if cx.namespace().topic_count() > TOPICS_IN_A_TURN => return true,
            None => cx.namespace().topics().iter().map(count).sum(),
            Some(topics) => {
                let named = topics.iter().filter_map(|topic| match &topic.name {
                    Some(name) if topic.topic_id == Uuid::ZERO => cx.namespace().topic(name),
                    _ => cx.namespace().topic_by_id(TopicId(topic.topic_id.0)),
                });
                named.map(|topic| count(&topic)).sum()
            }
        };
        partitions > PARTITIONS_IN_A_TURN
    }

    fn handle(cx: &mut RequestContext<'_>, request: MetadataRequest) -> Reply<MetadataResponse> {
        let config = cx.config();
        let all = is_of_all(cx, &request);
        let access = cx.access;
        if all && cx.is_detached && access.permissions.is_unrestricted() {
            return Reply::Encoded(all_topics(cx, &request));
        }
        let includes_cluster = request.include_cluster_authorized_operations;
        let includes = request.include_topic_authorized_operations;
        let operations = |name: &str| authorized_operations::topic(access, includes, name);
        let mut completion = Completion::Now;
        let mut topics = Vec::new();
        if all {
            let known = cx.namespace().topics();
            let visible = known.iter().filter(|topic| access.may_topic(topic.name(), Operation::Describe));
            topics.extend(visible.map(|topic| describe(topic, config, operations(topic.name()))));
        } else {
            let mut creations = config.limits.new_partitions_max / config.default_partitions.max(1);
            for wanted in request.topics.unwrap_or_default() {
                let create = request.allow_auto_topic_creation && creations > 0;
                let (topic, created) = requested_topic(cx, wanted, create, &operations);
                topics.push(topic);
                creations -= u32::from(created != Completion::Now);
                completion = completion.and(created);
            }
        }
        let response = MetadataResponse { topics, ..of_cluster(cx, includes_cluster) };
        Reply::Response(response, completion)
    }
}

/// Whether all topics are asked for: in version 0 by an empty list, later by null.
fn is_of_all(cx: &RequestContext<'_>, request: &MetadataRequest) -> bool {
    request.topics.as_ref().is_none_or(|topics| cx.version() == 0 && topics.is_empty())
}

/// A response without topics.
fn of_cluster(cx: &RequestContext<'_>, includes_operations: bool) -> MetadataResponse {
    let (host, port) = cx.advertised_address();
    let node_id = cx.config().node_id;
    MetadataResponse {
        throttle_time_ms: 0,
        brokers: vec![MetadataResponseBroker { node_id, host, port, rack: None }],
        cluster_id: Some(cx.node.cluster_id.clone()),
        controller_id: node_id,
        topics: Vec::new(),
        cluster_authorized_operations: authorized_operations::cluster(cx.access, includes_operations),
        error_code: ErrorCode::NONE,
    }
}

/// The response with all topics for a client that may do everything: its longest part is encoded once for all of those that
/// ask at the same time.
fn all_topics(cx: &RequestContext<'_>, request: &MetadataRequest) -> Frame {
    let (version, config) = (cx.header.version, cx.config());
    let includes = request.include_topic_authorized_operations;
    let key = (cx.namespace().version(), version.number, includes);
    let topics = cx.access.node.topics.get(key, || {
        let (known, mut out) = (cx.namespace().topics(), BytesMut::new());
        write_length(&mut out, known.len(), version.flexible);
        for topic in known {
            let operations = authorized_operations::topic(cx.access, includes, topic.name());
            describe(&topic, config, operations).write(&mut out, version);
        }
        out.into()
    });
    let response = of_cluster(cx, request.include_cluster_authorized_operations);
    let mut arena = BytesMut::new();
    let mut writer = FrameWriter::new(&mut arena, cx.header);
    let out = writer.out();
    if version.number >= 3 {
        out.put_i32(cx.throttle_time_ms());
    }
    response.brokers.write(out, version);
    if version.number >= 2 {
        response.cluster_id.write(out, version);
    }
    if version.number >= 1 {
        response.controller_id.write(out, version);
    }
    writer.splice(topics);
    let out = writer.out();
    if (8..=10).contains(&version.number) {
        response.cluster_authorized_operations.write(out, version);
    }
    if version.number >= 13 {
        response.error_code.write(out, version);
    }
    write_no_tagged_fields(out, version);
    writer.finish()
}

/// The metadata of one requested topic, and the completion of its creation if it was created.
fn requested_topic(
    cx: &mut RequestContext<'_>,
    wanted: MetadataRequestTopic,
    create: bool,
    operations: &dyn Fn(&str) -> i32,
) -> (MetadataResponseTopic, Completion) {
    let failed = |name: Option<Str>, topic_id, error_code| {
        let topic = MetadataResponseTopic { error_code, name, topic_id, ..MetadataResponseTopic::default() };
        (topic, Completion::Now)
    };
    let (access, config) = (cx.access, cx.config());
    let described = |topic: &Arc<Topic>| describe(topic, config, operations(topic.name()));
    let known = |topic: &Arc<Topic>| (described(topic), Completion::Now);
    let unauthorized = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    // Kafka's client names the topics of a pattern by their ids beside empty names.
    let Some(name) = wanted.name.filter(|_| wanted.topic_id == Uuid::ZERO) else {
        return match cx.topic_by_id(wanted.topic_id) {
            Some(topic) if access.may_topic(topic.name(), Operation::Describe) => known(&topic),
            Some(_) => failed(None, wanted.topic_id, unauthorized),
            None => failed(None, wanted.topic_id, ErrorCode::UNKNOWN_TOPIC_ID),
        };
    };
    if access.check_topic(&name, Operation::Describe).is_err() {
        return failed(Some(name), Uuid::ZERO, unauthorized);
    }
    if let Some(topic) = cx.namespace().topic(&name) {
        return known(&topic);
    }
    if !map::topic::is_legal_name(&name) {
        return failed(Some(name), Uuid::ZERO, ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    if !create || !config.auto_create_topics || map::topic::check_reserved(&name).is_err() {
        return failed(Some(name), Uuid::ZERO, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    if !access.may_cluster(Operation::Create) && access.check_topic(&name, Operation::Create).is_err() {
        return failed(Some(name), Uuid::ZERO, unauthorized);
    }
    if map::topic::check_collision(&name, |other| cx.namespace().topic(other).is_some()).is_err() {
        return failed(Some(name), Uuid::ZERO, ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    let spec = TopicSpec { partitions: config.default_partitions, config: TopicConfig::new() };
    match cx.namespace().create_topic(&name, &spec) {
        Ok((topic, lsn)) => {
            let (client_id, user) = (cx.client_id.as_deref(), cx.principal().and_then(Identity::name));
            tracing::info!(topic = %name, client_id, user, "topic created on a metadata request");
            (described(&topic), Completion::At(lsn))
        }
        // Another connection created it meanwhile.
        Err(TopicError::Exists(_)) => match cx.namespace().topic(&name) {
            Some(topic) => known(&topic),
            None => failed(Some(name), Uuid::ZERO, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        },
        Err(error) => failed(Some(name), Uuid::ZERO, map::topic::error_code(&error)),
    }
}

fn describe(topic: &Arc<Topic>, config: &KafkaConfig, operations: i32) -> MetadataResponseTopic {
    let replicas = settings::topic::replicas(topic, config);
    let partitions = (0..topic.partition_count() as i32).map(|partition_index| MetadataResponsePartition {
        error_code: ErrorCode::NONE,
        partition_index,
        leader_id: config.node_id,
        leader_epoch: LEADER_EPOCH,
        replica_nodes: replicas.clone(),
        isr_nodes: replicas.clone(),
        offline_replicas: Vec::new(),
    });
    MetadataResponseTopic {
        error_code: ErrorCode::NONE,
        name: Some(topic.name().into()),
        topic_id: Uuid(topic.id().0),
        is_internal: false,
        partitions: partitions.collect(),
        topic_authorized_operations: operations,
    }
}
