//! How consumers share a subscription.

/// How the consumers of a subscription share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// One consumer; a second is refused.
    Exclusive,
    /// Each message goes to one of the consumers.
    Shared,
    /// One consumer is active; another takes over when it leaves.
    Failover,
    /// Each message goes to one of the consumers, all of one key to the same.
    KeyShared,
}

impl Mode {
    /// The name that users read and write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Exclusive => "exclusive",
            Mode::Shared => "shared",
            Mode::Failover => "failover",
            Mode::KeyShared => "key_shared",
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = ();

    fn from_str(s: &str) -> Result<Mode, ()> {
        match s {
            "exclusive" => Ok(Mode::Exclusive),
            "shared" => Ok(Mode::Shared),
            "failover" => Ok(Mode::Failover),
            "key_shared" => Ok(Mode::KeyShared),
            _ => Err(()),
        }
    }
}
