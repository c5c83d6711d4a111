//! Metadata: the node, the topics and the leaders of their partitions. Creates topics on request of the client.

use std::ops::RangeInclusive;
use std::sync::Arc;

use inver_access::Operation;
use inver_broker::{Completion, Identity, Topic, TopicConfig, TopicError, TopicSpec};

use super::authorized_operations;
use super::context::RequestContext;
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::map;
use crate::node::LEADER_EPOCH;

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

/// The Metadata API.
pub struct Metadata;

impl Handler for Metadata {
    const KEY: i16 = 3;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const FLEXIBLE_FROM: i16 = 9;

    type Request = MetadataRequest;
    type Response = MetadataResponse;

    fn handle(cx: &mut RequestContext<'_>, request: MetadataRequest) -> Reply<MetadataResponse> {
        let config = cx.config();
        // In version 0 an empty list means all topics; later, null does.
        let all = request.topics.as_ref().is_none_or(|topics| cx.version() == 0 && topics.is_empty());
        let access = cx.access;
        let includes = request.include_topic_authorized_operations;
        let operations = |name: &str| authorized_operations::topic(access, includes, name);
        let mut completion = Completion::Now;
        let mut topics = Vec::new();
        if all {
            let known = cx.namespace().topics();
            let visible = known.iter().filter(|topic| access.may_topic(topic.name(), Operation::Describe));
            topics.extend(visible.map(|topic| describe(topic, config.node_id, operations(topic.name()))));
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
        let (host, port) = cx.advertised_address();
        let node_id = config.node_id;
        let response = MetadataResponse {
            throttle_time_ms: 0,
            brokers: vec![MetadataResponseBroker { node_id, host, port, rack: None }],
            cluster_id: Some(cx.node.cluster_id.clone()),
            controller_id: node_id,
            topics,
            cluster_authorized_operations: authorized_operations::cluster(
                access,
                request.include_cluster_authorized_operations,
            ),
            error_code: ErrorCode::NONE,
        };
        Reply::Response(response, completion)
    }
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
    let described = |topic: &Arc<Topic>| describe(topic, config.node_id, operations(topic.name()));
    let known = |topic: &Arc<Topic>| (described(topic), Completion::Now);
    let unauthorized = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    let Some(name) = wanted.name else {
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

fn describe(topic: &Arc<Topic>, node_id: i32, operations: i32) -> MetadataResponseTopic {
    let partitions = (0..topic.partition_count() as i32).map(|partition_index| MetadataResponsePartition {
        error_code: ErrorCode::NONE,
        partition_index,
        leader_id: node_id,
        leader_epoch: LEADER_EPOCH,
        replica_nodes: vec![node_id],
        isr_nodes: vec![node_id],
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
