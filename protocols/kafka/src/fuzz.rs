//! What is fuzzed: the ways in for bytes that nobody has looked at. Each takes any bytes, and neither panics nor
//! reserves memory that the bytes only claim.
//!
//! The targets in the repository's `fuzz` folder call these with a fuzzer's bytes; the tests here call them with random
//! ones, for a bounded time.

use bytes::{Bytes, BytesMut};
use inver_storage::batch::{Batch, HEADER_BYTES};

use crate::codec::api::*;
use crate::codec::api_key::{Api, key};
use crate::codec::header::{self, Header};
use crate::codec::reader::{DecodeError, Reader};
use crate::codec::wire::Wire;
use crate::map::batch::{Rules, check_records, stamped};

/// Places in the header of a batch.
const MAGIC_AT: usize = 16;
const CRC_AT: std::ops::Range<usize> = 17..21;
const BATCH_LENGTH_AT: std::ops::Range<usize> = 8..12;

macro_rules! bodies {
    ($($api:ident $module:ident::$message:ident;)*) => {
        fn body(api: &Api, reader: &mut Reader, version: crate::codec::wire::Version) -> Result<(), DecodeError> {
            match api.key {
                $( key::$api => $module::$message::read(reader, version).map(drop), )*
                _ => Ok(()),
            }
        }

        #[cfg(test)]
        const BODIES: &[Api] = &[$( Api::$api ),*];
    };
}

bodies! {
    Produce produce::ProduceRequest;
    Fetch fetch::FetchRequest;
    ListOffsets list_offsets::ListOffsetsRequest;
    Metadata metadata::MetadataRequest;
    OffsetCommit offset_commit::OffsetCommitRequest;
    OffsetFetch offset_fetch::OffsetFetchRequest;
    FindCoordinator find_coordinator::FindCoordinatorRequest;
    JoinGroup join_group::JoinGroupRequest;
    Heartbeat heartbeat::HeartbeatRequest;
    LeaveGroup leave_group::LeaveGroupRequest;
    SyncGroup sync_group::SyncGroupRequest;
    DescribeGroups describe_groups::DescribeGroupsRequest;
    ListGroups list_groups::ListGroupsRequest;
    SaslHandshake sasl_handshake::SaslHandshakeRequest;
    ApiVersions api_versions::ApiVersionsRequest;
    CreateTopics create_topics::CreateTopicsRequest;
    DeleteTopics delete_topics::DeleteTopicsRequest;
    DeleteRecords delete_records::DeleteRecordsRequest;
    InitProducerId init_producer_id::InitProducerIdRequest;
    OffsetForLeaderEpoch offset_for_leader_epoch::OffsetForLeaderEpochRequest;
    DescribeAcls describe_acls::DescribeAclsRequest;
    CreateAcls create_acls::CreateAclsRequest;
    DeleteAcls delete_acls::DeleteAclsRequest;
    DescribeConfigs describe_configs::DescribeConfigsRequest;
    AlterConfigs alter_configs::AlterConfigsRequest;
    AlterReplicaLogDirs alter_replica_log_dirs::AlterReplicaLogDirsRequest;
    DescribeLogDirs describe_log_dirs::DescribeLogDirsRequest;
    SaslAuthenticate sasl_authenticate::SaslAuthenticateRequest;
    CreatePartitions create_partitions::CreatePartitionsRequest;
    DeleteGroups delete_groups::DeleteGroupsRequest;
    ElectLeaders elect_leaders::ElectLeadersRequest;
    IncrementalAlterConfigs incremental_alter_configs::IncrementalAlterConfigsRequest;
    AlterPartitionReassignments alter_partition_reassignments::AlterPartitionReassignmentsRequest;
    ListPartitionReassignments list_partition_reassignments::ListPartitionReassignmentsRequest;
    OffsetDelete offset_delete::OffsetDeleteRequest;
    DescribeClientQuotas describe_client_quotas::DescribeClientQuotasRequest;
    DescribeUserScramCredentials describe_user_scram_credentials::DescribeUserScramCredentialsRequest;
    DescribeCluster describe_cluster::DescribeClusterRequest;
    DescribeProducers describe_producers::DescribeProducersRequest;
    ListTransactions list_transactions::ListTransactionsRequest;
    ListConfigResources list_config_resources::ListConfigResourcesRequest;
    DescribeTopicPartitions describe_topic_partitions::DescribeTopicPartitionsRequest;
}

/// A request without its length, as it comes from a socket.
pub fn request(bytes: &[u8]) {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    if let Ok(Header::Known(header)) = header::read(&mut reader) {
        let _ = body(header.api, &mut reader, header.version);
    }
}

/// The batch that a producer sends to a partition. What stands in the way of getting deep into it is set right: its
/// length, its format and its checksum.
pub fn batch(bytes: &[u8]) {
    let mut bytes = BytesMut::from(bytes);
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let length = (bytes.len() - BATCH_LENGTH_AT.end) as u32;
    let crc = |bytes: &[u8]| crc32c::crc32c(bytes.get(CRC_AT.end..).unwrap_or_default());
    for (place, value) in [
        (BATCH_LENGTH_AT, &length.to_be_bytes()[..]),
        (MAGIC_AT..MAGIC_AT + 1, &[2]),
        (CRC_AT, &crc(&bytes).to_be_bytes()),
    ] {
        if let Some(field) = bytes.get_mut(place) {
            field.copy_from_slice(value);
        }
    }
    let Ok(batch) = Batch::parse(bytes.freeze()) else { return };
    for keyed in [false, true] {
        if let Ok(checked) = check_records(&batch, Rules { keyed, times: Some((0, 1 << 50)) }) {
            let _ = stamped(batch.clone(), &checked, keyed);
        }
    }
}

#[cfg(test)]
mod tests {
    use inver_storage::batch::BatchBuilder;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_request_has_its_body() {
        assert_eq!(BODIES, Api::ALL);
    }

    fn sound() -> Vec<u8> {
        let mut builder = BatchBuilder::new(200);
        builder.push(5, Some(b"key"), &[(b"name", Some(b"value")), (b"", None)], Some(b"value"));
        builder.push(6, None, &[], None);
        builder.finish().into_bytes().to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_request(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0i16..20) {
            request(&bytes);
            for api in Api::ALL {
                if let Some(front) = bytes.get_mut(..4) {
                    front[..2].copy_from_slice(&api.key.to_be_bytes());
                    front[2..].copy_from_slice(&version.to_be_bytes());
                }
                request(&bytes);
            }
        }

        #[test]
        fn any_records(front in proptest::collection::vec(any::<u8>(), 61), records in proptest::collection::vec(0u8..12, 0..100)) {
            batch(&[front, records].concat());
        }

        /// A sound batch with a few bytes of it changed gets deeper than random ones.
        #[test]
        fn a_batch_that_is_nearly_sound(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4)) {
            let mut bytes = sound();
            for (place, value) in changes {
                let place = place % bytes.len();
                bytes[place] = value;
            }
            batch(&bytes);
        }
    }
}
