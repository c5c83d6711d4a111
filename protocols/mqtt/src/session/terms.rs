//! Session expiry, and the terms of a subscription with their stored form.

use bytes::Bytes;
use inver_broker::{Expiry, Mode};

use crate::codec::{SubscribeOptions, Version};

/// The Session Expiry Interval of a session that never expires (section 3.1.2.11.2).
pub(super) const NEVER_S: u32 = u32::MAX;

/// How long a session outlives its connection, from its Session Expiry Interval.
pub(super) fn expiry(seconds: u32) -> Expiry {
    match seconds {
        0 => Expiry::AtDetach,
        NEVER_S => Expiry::Never,
        seconds => Expiry::After(seconds),
    }
}

/// Options, identifier and mode of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) options: SubscribeOptions,
    pub(crate) id: Option<u32>,
    /// The mode that the client asked for; of a shared subscription only.
    pub(crate) mode: Option<Mode>,
}

/// Every possible options byte, for [`Terms::to_bytes`] to borrow from.
static OPTIONS: [u8; 64] = {
    let mut bytes = [0; 64];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

/// The stored code of each mode that a client can ask for.
const MODES: [(u8, Mode); 4] =
    [(1, Mode::Exclusive), (2, Mode::Shared), (3, Mode::Failover), (4, Mode::KeyShared)];

impl Terms {
    /// The mode of a shared subscription.
    pub(crate) fn share_mode(self) -> Mode {
        self.mode.unwrap_or(Mode::Shared)
    }

    /// The form in which the broker stores them beside the filter: the options byte, the identifier if there is one
    /// (4 bytes, big endian), the mode if there is one (1 byte).
    pub(crate) fn to_bytes(self) -> Bytes {
        let options = self.options.byte(Version::V5);
        if let (None, None, Some(byte)) =
            (self.id, self.mode, OPTIONS.get(usize::from(options)..=options.into()))
        {
            // The common case allocates nothing: every session holds such bytes for every filter.
            return Bytes::from_static(byte);
        }
        let mut bytes = vec![options];
        bytes.extend(self.id.iter().flat_map(|id| id.to_be_bytes()));
        bytes.extend(MODES.iter().filter(|(_, mode)| Some(*mode) == self.mode).map(|(code, _)| code));
        bytes.into()
    }

    /// Decodes what [`to_bytes`](Self::to_bytes) wrote; `None` if it is anything else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Terms> {
        let (&options, id) = bytes.split_first()?;
        let options = SubscribeOptions::from_byte(options, Version::V5).ok()?;
        let (id, mode) = match id.split_first_chunk::<4>() {
            Some((id, mode)) => (Some(u32::from_be_bytes(*id)), mode),
            None => (None, id),
        };
        let mode = match *mode {
            [] => None,
            [code] => Some(MODES.iter().find(|(known, _)| *known == code)?.1),
            _ => return None,
        };
        Some(Terms { options, id, mode })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_stored_form_round_trips(byte in 0u8..64, id in prop::option::of(any::<u32>()), mode in 0usize..5) {
            if let Ok(options) = SubscribeOptions::from_byte(byte, Version::V5) {
                let terms = Terms { options, id, mode: MODES.get(mode).map(|(_, mode)| *mode) };
                prop_assert_eq!(Terms::from_bytes(&terms.to_bytes()), Some(terms));
            }
        }
    }
}
