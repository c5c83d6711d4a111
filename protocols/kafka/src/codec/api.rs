//! The description of one API: its key, its name and the versions answered.
//!
//! The list of APIs is [`crate::api`]; the codec only needs the description to read and write headers.

use super::wire::Version;

/// One API of Kafka's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Api {
    /// Api key on the wire.
    pub key: i16,
    /// Name in Kafka's protocol.
    pub name: &'static str,
    /// Oldest version answered.
    pub version_min: i16,
    /// Newest version answered.
    pub version_max: i16,
    /// First version with compact lengths and tagged fields (KIP-482); above `version_max` if there is none yet.
    pub flexible_from: i16,
    /// Whether an unauthenticated client may call it.
    pub before_authentication: bool,
    /// Whether requests carry record batches, for which a larger size limit holds.
    pub carries_records: bool,
}

impl Api {
    /// The version with this number, if it is answered.
    pub fn version(&self, number: i16) -> Option<Version> {
        (self.version_min..=self.version_max)
            .contains(&number)
            .then_some(Version { number, flexible: number >= self.flexible_from })
    }
}
