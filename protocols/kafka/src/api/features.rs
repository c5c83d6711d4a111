//! Features (KIP-584): levels by which tools tell which version of Kafka a broker is like.

/// A feature. Its level does not change while the broker runs.
pub(super) struct Feature {
    pub(super) name: &'static str,
    /// The least level that Kafka 4.4 supports.
    pub(super) min: i16,
    /// The level, which is the greatest that is supported.
    pub(super) level: i16,
}

/// The features, those of Kafka 4.4 whose APIs are there.
pub(super) const FEATURES: [Feature; 4] = [
    Feature { name: "metadata.version", min: 7, level: 33 },
    // The broker makes the assignment of consumer groups (KIP-848).
    Feature { name: "group.version", min: 0, level: 1 },
    // Share groups (KIP-932).
    Feature { name: "share.version", min: 0, level: 1 },
    // Producers tell by it how transactions work: as KIP-890 has it.
    Feature { name: "transaction.version", min: 0, level: 2 },
];
