//! Topics of one side as topics of the other.

use crate::codec::Qos;
use crate::config::{AmqpNames, BridgeSpec, BridgeTopic, Direction, template};

/// The topics that go one way: the first entry that matches says what a topic becomes.
#[derive(Debug)]
pub(super) struct Topics(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// The filter at the side that messages come from.
    filter: String,
    /// Bytes of the topic that are replaced.
    prefix_bytes: usize,
    prefix: String,
    qos: Qos,
    /// The same topics go the other way too.
    is_both: bool,
}

/// A subscription at the side that messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    pub(super) filter: &'a str,
    pub(super) qos: Qos,
    pub(super) is_both: bool,
}

impl Topics {
    /// Those that go out, by the topics that this broker has: `names` changes separators, and no lengths.
    pub(super) fn out(spec: &BridgeSpec, names: AmqpNames) -> Topics {
        Topics::of(spec, Direction::In, |topic| {
            let filter = names.topic(&topic.local_filter()).into_owned();
            (filter, topic.local_prefix.len(), topic.remote_prefix.clone())
        })
    }

    /// Those that come in.
    pub(super) fn incoming(spec: &BridgeSpec) -> Topics {
        Topics::of(spec, Direction::Out, |topic| {
            (topic.remote_filter(), topic.remote_prefix.len(), topic.local_prefix.clone())
        })
    }

    fn of(
        spec: &BridgeSpec,
        not: Direction,
        parts: impl Fn(&BridgeTopic) -> (String, usize, String),
    ) -> Topics {
        let entries = spec.topics.iter().filter(|topic| topic.direction != not).map(|topic| {
            let (filter, prefix_bytes, prefix) = parts(topic);
            let is_both = topic.direction == Direction::Both;
            Entry { filter, prefix_bytes, prefix, qos: topic.qos(), is_both }
        });
        Topics(entries.collect())
    }

    /// What is subscribed to; of the same filter twice the highest QoS.
    pub(super) fn wanted(&self) -> Vec<Wanted<'_>> {
        let mut all: Vec<Wanted<'_>> = Vec::new();
        for Entry { filter, qos, is_both, .. } in &self.0 {
            match all.iter_mut().find(|wanted| wanted.filter == filter) {
                Some(wanted) => {
                    wanted.qos = wanted.qos.max(*qos);
                    wanted.is_both |= is_both;
                }
                None => all.push(Wanted { filter, qos: *qos, is_both: *is_both }),
            }
        }
        all
    }

    /// What a topic becomes, in `into`; false if no entry has it.
    pub(super) fn translate(&self, topic: &str, into: &mut String) -> bool {
        into.clear();
        let entry = self.0.iter().find(|entry| template::matched(&entry.filter, topic).is_some());
        let Some((entry, rest)) = entry.and_then(|entry| Some((entry, topic.get(entry.prefix_bytes..)?)))
        else {
            return false;
        };
        into.push_str(&entry.prefix);
        into.push_str(rest);
        !into.is_empty() && into.len() <= usize::from(u16::MAX)
    }

    /// By how many bytes a topic may grow.
    pub(super) fn growth_max(&self) -> usize {
        let growth = |entry: &Entry| entry.prefix.len().saturating_sub(entry.prefix_bytes);
        self.0.iter().map(growth).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> BridgeSpec {
        let topic = |filter: &str, direction, qos, local: &str, remote: &str| BridgeTopic {
            filter: filter.into(),
            direction,
            qos,
            local_prefix: local.into(),
            remote_prefix: remote.into(),
        };
        let topics = vec![
            topic("up/#", Direction::Out, 2, "", "site/1/"),
            topic("down/+", Direction::In, 1, "cmd/", "site/1/"),
            topic("#", Direction::Both, 0, "shared/", ""),
            topic("", Direction::Out, 1, "one", "other"),
            topic("up/#", Direction::Out, 0, "", "never/"),
        ];
        BridgeSpec { topics, ..BridgeSpec::default() }
    }

    #[test]
    fn prefixes_are_exchanged_both_ways() {
        let (out, incoming) = (Topics::out(&topics(), AmqpNames::Reversible), Topics::incoming(&topics()));
        let mut into = String::new();
        for (topics, topic, becomes) in [
            (&out, "up/a/b", Some("site/1/up/a/b")),
            (&out, "up", Some("site/1/up")),
            (&out, "shared/x", Some("x")),
            (&out, "one", Some("other")),
            (&out, "elsewhere", None),
            (&incoming, "site/1/down/x", Some("cmd/down/x")),
            (&incoming, "site/1/down/x/y", Some("shared/site/1/down/x/y")),
            (&incoming, "$SYS/x", None),
        ] {
            let known = topics.translate(topic, &mut into);
            assert_eq!(known.then_some(&*into), becomes, "{topic}");
        }
        assert_eq!((out.growth_max(), incoming.growth_max()), (7, 7));
    }

    #[test]
    fn local_filters_are_as_the_brokers_topics() {
        let topic = |filter: &str, local: &str, remote: &str| BridgeTopic {
            filter: filter.into(),
            direction: Direction::Both,
            local_prefix: local.into(),
            remote_prefix: remote.into(),
            ..BridgeTopic::default()
        };
        let topics = vec![topic("up.a/#", "site.1/", "far.away/")];
        let spec = BridgeSpec { topics, ..BridgeSpec::default() };
        let mut into = String::new();
        for (names, filter, one, other) in [
            (AmqpNames::Rabbitmq, "site/1/up/a/#", "site/1/up/a/b", "far.away/up/a/b"),
            (AmqpNames::Reversible, "site.1/up.a/#", "site.1/up.a/b", "far.away/up.a/b"),
        ] {
            let out = Topics::out(&spec, names);
            assert_eq!(out.wanted()[0].filter, filter);
            assert!(out.translate(one, &mut into));
            assert_eq!(into, other);
        }
        assert_eq!(
            Topics::incoming(&spec).wanted()[0].filter,
            "far.away/up.a/#",
            "another server's are its own"
        );
    }

    #[test]
    fn a_topic_that_would_be_empty_is_not_carried() {
        let out = Topics::out(&topics(), AmqpNames::Reversible);
        assert!(!out.translate("shared/", &mut String::new()));
    }

    #[test]
    fn a_filter_is_subscribed_to_once_at_the_highest_qos() {
        let out = Topics::out(&topics(), AmqpNames::Reversible);
        let wanted: Vec<_> = out.wanted().iter().map(|wanted| (wanted.filter, wanted.qos as u8)).collect();
        assert_eq!(wanted, [("up/#", 2), ("shared/#", 0), ("one", 1)]);
    }
}
