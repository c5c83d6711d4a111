//! Which requests are understood, and in which versions.

use super::wire::Version;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Api {
    /// Its number on the wire.
    pub key: i16,
    /// Its name in Kafka's protocol.
    pub name: &'static str,
    /// The oldest version answered.
    pub version_min: i16,
    /// The newest version answered.
    pub version_max: i16,
    /// The first version with compact lengths and tagged fields; above `version_max` if there is none yet.
    pub flexible_from: i16,
}

impl Api {
    /// The version of that number, if it is answered.
    pub fn version(&self, number: i16) -> Option<Version> {
        (self.version_min..=self.version_max)
            .contains(&number)
            .then_some(Version { number, flexible: number >= self.flexible_from })
    }
}

macro_rules! apis {
    ($($key:literal $name:ident $min:literal..=$max:literal flexible $flexible:literal;)*) => {
        #[allow(non_upper_case_globals, missing_docs, reason = "the names are those of Kafka's protocol")]
        impl Api {
            $( pub const $name: Api = Api {
                key: $key,
                name: stringify!($name),
                version_min: $min,
                version_max: $max,
                flexible_from: $flexible,
            }; )*

            /// Every kind of request that is answered, by key.
            pub const ALL: &'static [Api] = &[$( Api::$name ),*];
        }

        /// The numbers, for matching.
        #[allow(non_upper_case_globals, missing_docs, reason = "the names are those of Kafka's protocol")]
        pub mod key {
            $( pub const $name: i16 = $key; )*
        }
    };
}

// Produce is advertised from 0 although batches older than v2 are refused: librdkafka takes a broker without the old
// versions to be unable to do compression (KAFKA-18659), and Kafka itself advertises them for that reason.
apis! {
    0 Produce 0..=13 flexible 9;
    1 Fetch 4..=18 flexible 12;
    2 ListOffsets 1..=11 flexible 6;
    3 Metadata 0..=13 flexible 9;
    8 OffsetCommit 2..=10 flexible 8;
    9 OffsetFetch 1..=10 flexible 6;
    10 FindCoordinator 0..=6 flexible 3;
    11 JoinGroup 0..=9 flexible 6;
    12 Heartbeat 0..=4 flexible 4;
    13 LeaveGroup 0..=5 flexible 4;
    14 SyncGroup 0..=5 flexible 4;
    15 DescribeGroups 0..=6 flexible 5;
    16 ListGroups 0..=5 flexible 3;
    17 SaslHandshake 0..=1 flexible 2;
    18 ApiVersions 0..=4 flexible 3;
    19 CreateTopics 2..=7 flexible 5;
    20 DeleteTopics 1..=6 flexible 4;
    21 DeleteRecords 0..=2 flexible 2;
    22 InitProducerId 0..=5 flexible 2;
    23 OffsetForLeaderEpoch 2..=4 flexible 4;
    29 DescribeAcls 1..=3 flexible 2;
    30 CreateAcls 1..=3 flexible 2;
    31 DeleteAcls 1..=3 flexible 2;
    32 DescribeConfigs 1..=4 flexible 4;
    33 AlterConfigs 0..=2 flexible 2;
    34 AlterReplicaLogDirs 1..=2 flexible 2;
    35 DescribeLogDirs 1..=5 flexible 2;
    36 SaslAuthenticate 0..=2 flexible 2;
    37 CreatePartitions 0..=3 flexible 2;
    42 DeleteGroups 0..=3 flexible 2;
    43 ElectLeaders 0..=2 flexible 2;
    44 IncrementalAlterConfigs 0..=1 flexible 1;
    45 AlterPartitionReassignments 0..=1 flexible 0;
    46 ListPartitionReassignments 0..=0 flexible 0;
    47 OffsetDelete 0..=0 flexible 1;
    48 DescribeClientQuotas 0..=1 flexible 1;
    50 DescribeUserScramCredentials 0..=0 flexible 0;
    60 DescribeCluster 0..=2 flexible 0;
    61 DescribeProducers 0..=0 flexible 0;
    66 ListTransactions 0..=2 flexible 0;
    74 ListConfigResources 0..=1 flexible 0;
    75 DescribeTopicPartitions 0..=0 flexible 0;
}

/// The kind of request of that number, if it is answered.
pub fn api(key: i16) -> Option<&'static Api> {
    Api::ALL.binary_search_by_key(&key, |api| api.key).ok().and_then(|place| Api::ALL.get(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_by_key() {
        assert!(Api::ALL.is_sorted_by_key(|api| api.key));
        assert_eq!(api(18), Some(&Api::ApiVersions));
        assert_eq!(api(4), None);
    }
}
