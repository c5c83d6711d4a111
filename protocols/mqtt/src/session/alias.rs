//! Topic aliases in both directions (section 3.3.2.3.4), for the lifetime of the connection.

use std::collections::HashMap;

use crate::codec::{DecodeError, Reason};

/// Aliases set by the client.
#[derive(Debug)]
pub(crate) struct Incoming {
    #[expect(clippy::box_collection, reason = "most clients set none: one pointer")]
    topics: Option<Box<Vec<Option<Box<str>>>>>,
    maximum: u16,
}

impl Incoming {
    pub(crate) fn new(maximum: u16) -> Incoming {
        Incoming { topics: None, maximum }
    }

    /// The topic of a PUBLISH with this alias. A topic that is not empty is assigned to the alias. Fails above the Topic
    /// Alias Maximum [MQTT-3.3.2-9], and for an empty topic with an alias that was not assigned.
    pub(crate) fn resolve<'a>(&'a mut self, topic: &'a str, alias: u16) -> Result<&'a str, DecodeError> {
        if alias > self.maximum {
            return Err(DecodeError::because(
                Reason::TopicAliasInvalid,
                "a topic alias above the Topic Alias Maximum [MQTT-3.3.2-9]",
            ));
        }
        let index = usize::from(alias) - 1;
        if !topic.is_empty() {
            let topics = self.topics.get_or_insert_default();
            if topics.len() <= index {
                topics.resize(index + 1, None);
            }
            if let Some(slot) = topics.get_mut(index)
                && slot.as_deref() != Some(topic)
            {
                *slot = Some(topic.into());
            }
            return Ok(topic);
        }
        let known =
            self.topics.as_ref().and_then(|topics| topics.get(index)).and_then(|topic| topic.as_deref());
        known.ok_or(DecodeError::protocol("a topic alias that was not assigned (section 3.3.4)"))
    }
}

/// Aliases set by the server.
#[derive(Debug)]
pub(crate) struct Outgoing {
    #[expect(clippy::box_collection, reason = "most clients accept none: one pointer")]
    aliases: Option<Box<HashMap<Box<str>, u16>>>,
    maximum: u16,
}

impl Outgoing {
    pub(crate) fn new(maximum: u16) -> Outgoing {
        Outgoing { aliases: None, maximum }
    }

    /// Whether the client accepts aliases.
    pub(crate) fn is_enabled(&self) -> bool {
        self.maximum != 0
    }

    /// The alias of a topic, and whether the client knows it already. The first topics get one, up to the maximum.
    pub(crate) fn of(&mut self, topic: &str) -> Option<(u16, bool)> {
        if self.maximum == 0 {
            return None;
        }
        let aliases = self.aliases.get_or_insert_default();
        if let Some(&alias) = aliases.get(topic) {
            return Some((alias, true));
        }
        let alias = u16::try_from(aliases.len() + 1).ok().filter(|&alias| alias <= self.maximum)?;
        aliases.insert(topic.into(), alias);
        Some((alias, false))
    }

    /// Forgets the alias of a topic because the PUBLISH that would have set it was not sent.
    pub(crate) fn unset(&mut self, topic: &str) {
        if let Some(aliases) = &mut self.aliases {
            aliases.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incoming_aliases_are_assigned_reassigned_and_resolved() {
        let mut aliases = Incoming::new(2);
        assert_eq!(aliases.resolve("", 2).map_err(|e| e.reason), Err(Reason::ProtocolError));
        assert_eq!(aliases.resolve("a", 2), Ok("a"));
        assert_eq!(aliases.resolve("", 2), Ok("a"));
        assert_eq!(aliases.resolve("b", 2), Ok("b"));
        assert_eq!(aliases.resolve("", 2), Ok("b"));
        assert_eq!(aliases.resolve("", 1).map_err(|e| e.reason), Err(Reason::ProtocolError));
        assert_eq!(aliases.resolve("a", 3).map_err(|e| e.reason), Err(Reason::TopicAliasInvalid));
    }

    #[test]
    fn outgoing_aliases_are_bounded() {
        let mut aliases = Outgoing::new(1);
        assert_eq!(aliases.of("a"), Some((1, false)));
        assert_eq!(aliases.of("a"), Some((1, true)));
        assert_eq!(aliases.of("b"), None);
        aliases.unset("a");
        assert_eq!(aliases.of("b"), Some((1, false)));
        assert_eq!(Outgoing::new(0).of("a"), None);
    }
}
