//! How topics and routing keys belong together.

use std::borrow::Cow;

use inver_broker::address::{Form, rewrite};
use inver_settings::Setting;
use inver_settings::serde::Deserializer;
use inver_settings::serde::de::{Deserialize as _, Error, Unexpected};

/// How topics and routing keys belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AmqpNames {
    /// One to one: the topic `a.b/c` has the key `a%2Eb.c`, and the key `x.a/b` the topic `x/a%2Fb`.
    #[default]
    Reversible,
    /// As RabbitMQ's MQTT plugin: one separator is replaced by the other. The topics `a.b/c` and `a/b/c` are one, with the key
    /// `a.b.c`; the key `x.a/b` has the topic `x/a/b`.
    Rabbitmq,
}

impl AmqpNames {
    /// The topic, or filter, that a client means by one. The server's own (`$SYS/…`) are as they are.
    pub(crate) fn topic(self, named: &str) -> Cow<'_, str> {
        match self {
            AmqpNames::Rabbitmq if named.contains('.') && !named.starts_with("$SYS/") => {
                Cow::Owned(named.replace('.', "/"))
            }
            _ => Cow::Borrowed(named),
        }
    }

    /// The topic of a routing key, or of the name of a log topic.
    pub(crate) fn topic_of(self, dotted: &[u8]) -> Cow<'_, [u8]> {
        match self {
            AmqpNames::Reversible => rewrite(Form::Dotted, Form::Slashed, dotted),
            AmqpNames::Rabbitmq => {
                let slashed = |byte: &u8| if *byte == b'.' { b'/' } else { *byte };
                Cow::Owned(dotted.iter().map(slashed).collect())
            }
        }
    }
}

impl Setting for AmqpNames {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        match String::deserialize(value)?.as_str() {
            "reversible" => Ok(AmqpNames::Reversible),
            "rabbitmq" => Ok(AmqpNames::Rabbitmq),
            other => Err(D::Error::invalid_value(Unexpected::Str(other), &"`reversible` or `rabbitmq`")),
        }
    }

    fn show(&self) -> String {
        let name = match self {
            AmqpNames::Reversible => "reversible",
            AmqpNames::Rabbitmq => "rabbitmq",
        };
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_names_change_separators_only() {
        let (as_plugin, one_to_one) = (AmqpNames::Rabbitmq, AmqpNames::Reversible);
        let topics = [("a.b/c", "a/b/c"), ("a/+/#", "a/+/#"), ("$SYS/a.b", "$SYS/a.b"), ("a..b", "a//b")];
        for (named, topic) in topics {
            assert_eq!((as_plugin.topic(named), one_to_one.topic(named)), (topic.into(), named.into()));
        }
        assert_eq!(&*as_plugin.topic_of(b"x.a/b"), b"x/a/b");
        assert_eq!(&*one_to_one.topic_of(b"x.a/b"), b"x/a%2Fb");
    }
}
