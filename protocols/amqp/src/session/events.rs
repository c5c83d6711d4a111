//! What programs are told of channels and consumers. Those that serve `basic.get` are no consumers to them.

use inver_broker::Facts;

use super::channel::Channel;

use super::consumer::State;
use super::shared::Shared;
use crate::codec::Table;
use crate::map::{DIRECT_REPLY_TO, channel_pid, connection_pid, core_arguments};

impl Channel {
    fn pid(&self, shared: &Shared) -> String {
        channel_pid(shared.connection.id(), self.number, self.incarnation)
    }

    pub(super) fn tell_created(&self, shared: &Shared) {
        shared.namespace.tell("channel.created", || {
            let connection = &shared.connection;
            let name = format!("{} -> {} ({})", connection.peer(), connection.local(), self.number);
            Facts::new([
                ("pid", self.pid(shared).into()),
                ("name", name.into()),
                ("connection", connection_pid(connection.id()).into()),
                ("number", i64::from(self.number).into()),
                ("user", connection.user().unwrap_or_default().into()),
            ])
        });
    }

    /// Tells of its end and of that of its consumers.
    pub(super) fn tell_closed(&self, shared: &Shared) {
        self.tags.values().for_each(|slot| self.tell_consumer_deleted(*slot, shared));
        shared.namespace.tell("channel.closed", || {
            Facts::new([("pid", self.pid(shared).into()), ("consumer_count", 0.into())])
        });
    }

    pub(super) fn tell_consumer_created(
        &self,
        slot: u32,
        exclusive: bool,
        arguments: Table<'_>,
        shared: &Shared,
    ) {
        let Some(consumer) = self.consumers.get(slot as usize).filter(|consumer| is_told(&consumer.source))
        else {
            return;
        };
        shared.namespace.tell("consumer.created", || {
            Facts::new([
                ("consumer_tag", consumer.tag.as_str().into()),
                ("exclusive", exclusive.into()),
                ("ack_required", (!consumer.no_ack).into()),
                ("channel", self.pid(shared).into()),
                ("queue", consumer.source.as_str().into()),
                ("prefetch_count", i64::from(consumer.prefetch).into()),
                ("arguments", core_arguments(arguments).into()),
            ])
        });
    }

    /// Tells of the end of a consumer, while it still receives messages.
    pub(super) fn tell_consumer_deleted(&self, slot: u32, shared: &Shared) {
        let Some(consumer) = self.consumers.get(slot as usize).filter(|consumer| is_told(&consumer.source))
        else {
            return;
        };
        if consumer.is_getter || consumer.state == State::Cancelled {
            return;
        }
        shared.namespace.tell("consumer.deleted", || {
            Facts::new([
                ("consumer_tag", consumer.tag.as_str().into()),
                ("channel", self.pid(shared).into()),
                ("queue", consumer.source.as_str().into()),
            ])
        });
    }
}

/// Whether programs are told of a consumer: not of one for replies, to whose queue everybody may publish that knows its name.
fn is_told(source: &str) -> bool {
    !source.starts_with(DIRECT_REPLY_TO)
}
