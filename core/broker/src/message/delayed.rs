//! Where a delayed message goes once it is due, stored with the message as its property `delayed-to`.

use serde::{Deserialize, Serialize};

use super::{HeaderView, Property};

/// The name of the property. Its value is one byte for its version, then a [`DelayedTo`] in the `postcard` encoding.
pub(crate) const DELAYED_TO: &[u8] = b"delayed-to";

const VERSION: u8 = 1;

/// Where a delayed message goes, and what was decided when it was published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DelayedTo<'a> {
    #[serde(borrow)]
    pub(crate) target: DelayedTarget<'a>,
    /// Its own time to live, milliseconds from when it is due.
    pub(crate) ttl_ms: Option<i64>,
    /// The publisher was promised that it survives a crash.
    pub(crate) guaranteed: bool,
    /// What the publisher may do beside that.
    pub(crate) rights: Rights,
}

/// What a publisher may do beyond its target, decided when it published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rights {
    /// It may write to the log topics that its keys name.
    pub(crate) appends: bool,
    /// It may write to the addresses that its keys name, if an exchange passes the message on to the hub.
    pub(crate) passes_on: bool,
}

impl Rights {
    pub(crate) const ALL: Rights = Rights { appends: true, passes_on: true };
}

/// The destination of a delayed message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum DelayedTarget<'a> {
    Exchange {
        name: &'a str,
        routing_key: &'a [u8],
        more_keys: Vec<&'a [u8]>,
    },
    Hub {
        /// In its slashed form.
        address: &'a [u8],
        /// It sets or clears the retained value of the address.
        retain: bool,
    },
}

impl<'a> DelayedTo<'a> {
    /// The property's value.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Encoding to a vector fails for types without a known length only.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// That of a delayed message; none if it has none, or one that is damaged or of a later version.
    pub(crate) fn of(view: &HeaderView<'a>) -> Option<DelayedTo<'a>> {
        let value = view.typed_properties().find_map(|property| match property {
            Property::Other(DELAYED_TO, value) => Some(value),
            _ => None,
        });
        DelayedTo::decode(value?)
    }

    /// Decodes the property's value; none if it is damaged or of a later version.
    pub(crate) fn decode(value: &'a [u8]) -> Option<DelayedTo<'a>> {
        match value.split_first()? {
            (&VERSION, rest) => postcard::from_bytes(rest).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_read_again_and_damage_is_not() {
        let exchange = DelayedTarget::Exchange { name: "x", routing_key: b"k", more_keys: vec![b"l", b"m"] };
        for target in [exchange, DelayedTarget::Hub { address: b"a/b", retain: true }] {
            let to = DelayedTo {
                target,
                ttl_ms: Some(5),
                guaranteed: true,
                rights: Rights { appends: false, passes_on: true },
            };
            let bytes = to.encode();
            assert_eq!(DelayedTo::decode(&bytes), Some(to));
            assert_eq!(DelayedTo::decode(&bytes[..bytes.len() - 3]), None);
        }
        assert_eq!(DelayedTo::decode(&[2, 0]), None);
        let hub = DelayedTarget::Hub { address: b"a", retain: false };
        let to = DelayedTo { target: hub, ttl_ms: None, guaranteed: true, rights: Rights::ALL };
        assert_eq!(to.encode(), [1, 1, 1, b'a', 0, 0, 1, 1, 1], "the form does not change");
    }
}
