//! The APIs of Kafka's protocol: one file each, with its messages, its versions and its handler.
//!
//! `for_each_api!` is the list of them. Dispatch, the response to ApiVersions, the metrics by API and the tests of the
//! codec follow from it.
//!
//! Invariants: messages are declared from Kafka's published message schema, and `codec/tests/schema.rs` compares every
//! declaration with it; a handler sees a request and a [`context::RequestContext`], no socket and no connection.

#![allow(missing_docs, reason = "fields bear the names of Kafka's message schema, where they are described")]

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod alter_client_quotas;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod alter_replica_log_dirs;
pub mod alter_share_group_offsets;
pub mod alter_user_scram_credentials;
pub mod api_versions;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod create_acls;
pub mod create_delegation_token;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_acls;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_share_group_offsets;
pub mod delete_topics;
pub mod describe_acls;
pub mod describe_client_quotas;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_delegation_token;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_share_group_offsets;
pub mod describe_topic_partitions;
pub mod describe_transactions;
pub mod describe_user_scram_credentials;
pub mod elect_leaders;
pub mod end_txn;
pub mod expire_delegation_token;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod list_transactions;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod renew_delegation_token;
pub mod sasl_authenticate;
pub mod sasl_handshake;
pub mod share_acknowledge;
pub mod share_fetch;
pub mod share_group_describe;
pub mod share_group_heartbeat;
pub mod sync_group;
pub mod txn_offset_commit;
pub mod update_features;
pub mod write_txn_markers;

mod acls;
mod authorized_operations;
mod client_quotas;
mod config_resource;
pub(crate) mod context;
mod delegation_tokens;
mod features;
pub(crate) mod handler;
mod repeated;
pub(crate) mod reply;
mod scram_users;
#[cfg(test)]
mod tests;

use bytes::BytesMut;

use self::context::RequestContext;
use self::handler::Handler;
use self::reply::Reply;
use crate::codec::api::Api;
use crate::codec::frame::Frame;
use crate::codec::reader::Reader;
use crate::error::ConnectionError;

/// Calls `$run!` with every API, as `module::Handler;`, ordered by api key.
macro_rules! for_each_api {
    ($run:ident) => {
        $run! {
            produce::Produce;
            fetch::Fetch;
            list_offsets::ListOffsets;
            metadata::Metadata;
            offset_commit::OffsetCommit;
            offset_fetch::OffsetFetch;
            find_coordinator::FindCoordinator;
            join_group::JoinGroup;
            heartbeat::Heartbeat;
            leave_group::LeaveGroup;
            sync_group::SyncGroup;
            describe_groups::DescribeGroups;
            list_groups::ListGroups;
            sasl_handshake::SaslHandshake;
            api_versions::ApiVersions;
            create_topics::CreateTopics;
            delete_topics::DeleteTopics;
            delete_records::DeleteRecords;
            init_producer_id::InitProducerId;
            offset_for_leader_epoch::OffsetForLeaderEpoch;
            add_partitions_to_txn::AddPartitionsToTxn;
            add_offsets_to_txn::AddOffsetsToTxn;
            end_txn::EndTxn;
            write_txn_markers::WriteTxnMarkers;
            txn_offset_commit::TxnOffsetCommit;
            describe_acls::DescribeAcls;
            create_acls::CreateAcls;
            delete_acls::DeleteAcls;
            describe_configs::DescribeConfigs;
            alter_configs::AlterConfigs;
            alter_replica_log_dirs::AlterReplicaLogDirs;
            describe_log_dirs::DescribeLogDirs;
            sasl_authenticate::SaslAuthenticate;
            create_partitions::CreatePartitions;
            create_delegation_token::CreateDelegationToken;
            renew_delegation_token::RenewDelegationToken;
            expire_delegation_token::ExpireDelegationToken;
            describe_delegation_token::DescribeDelegationToken;
            delete_groups::DeleteGroups;
            elect_leaders::ElectLeaders;
            incremental_alter_configs::IncrementalAlterConfigs;
            alter_partition_reassignments::AlterPartitionReassignments;
            list_partition_reassignments::ListPartitionReassignments;
            offset_delete::OffsetDelete;
            describe_client_quotas::DescribeClientQuotas;
            alter_client_quotas::AlterClientQuotas;
            describe_user_scram_credentials::DescribeUserScramCredentials;
            alter_user_scram_credentials::AlterUserScramCredentials;
            describe_quorum::DescribeQuorum;
            update_features::UpdateFeatures;
            describe_cluster::DescribeCluster;
            describe_producers::DescribeProducers;
            describe_transactions::DescribeTransactions;
            list_transactions::ListTransactions;
            consumer_group_heartbeat::ConsumerGroupHeartbeat;
            consumer_group_describe::ConsumerGroupDescribe;
            list_config_resources::ListConfigResources;
            describe_topic_partitions::DescribeTopicPartitions;
            share_group_heartbeat::ShareGroupHeartbeat;
            share_group_describe::ShareGroupDescribe;
            share_fetch::ShareFetch;
            share_acknowledge::ShareAcknowledge;
            describe_share_group_offsets::DescribeShareGroupOffsets;
            alter_share_group_offsets::AlterShareGroupOffsets;
            delete_share_group_offsets::DeleteShareGroupOffsets;
        }
    };
}

macro_rules! apis {
    ($($module:ident::$name:ident;)*) => {
        #[allow(non_upper_case_globals, reason = "the names are those of Kafka's protocol")]
        impl Api {
            $( pub const $name: Api = Api::of::<$module::$name>(stringify!($name)); )*

            /// Every API, ordered by key.
            pub const ALL: &'static [Api] = &[$( Api::$name ),*];
        }

        /// Decodes the body of a request, handles it, and encodes the response into `arena`.
        pub(crate) fn handle(
            cx: &mut RequestContext<'_>,
            body: Reader,
            arena: &mut BytesMut,
        ) -> Result<Reply<Frame>, ConnectionError> {
            match cx.header.api.key {
                $( <$module::$name as Handler>::KEY => handler::run::<$module::$name>(cx, body, arena), )*
                api_key => {
                    Err(ConnectionError::Unsupported { api_key, api_version: cx.header.version.number })
                }
            }
        }
    };
}

for_each_api!(apis);

#[cfg(any(test, feature = "testing"))]
pub(crate) use for_each_api;

/// The API with this key, if it is answered.
pub fn find(key: i16) -> Option<&'static Api> {
    Api::ALL.binary_search_by_key(&key, |api| api.key).ok().and_then(|place| Api::ALL.get(place))
}
