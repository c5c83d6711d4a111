//! What the firehose is told of a channel.

use inver_broker::{Delivery, LiveConnection, Namespace};

use super::channel::Channel;
use super::shared::Shared;
use crate::firehose::Firehose;
use crate::map::{Publish, Renderer};

/// A client published a message to these queues, on the channel of this number.
#[cold]
pub(super) fn trace_published(
    number: u16,
    publish: &Publish<'_>,
    more_keys: &[&[u8]],
    queues: &[String],
    namespace: &Namespace,
    connection: &LiveConnection,
) {
    with_firehose(number, namespace, connection, |it| it.published(publish, more_keys, queues));
}

impl Channel {
    /// Messages were delivered from a queue or topic.
    #[cold]
    pub(super) fn trace_delivered(
        &self,
        deliveries: &[Delivery],
        queue: &str,
        table_max: usize,
        shared: &Shared,
    ) {
        let mut renderer = Renderer::default();
        with_firehose(self.number, &shared.client.namespace, &shared.connection, |firehose| {
            for delivery in deliveries {
                let source = delivery.topic.as_deref().unwrap_or(queue);
                let message = renderer.render(&delivery.record, source, table_max, shared.now_ms);
                firehose.delivered(queue, delivery.redelivered > 0, &message);
            }
        });
    }
}

fn with_firehose(
    channel: u16,
    namespace: &Namespace,
    connection: &LiveConnection,
    tell: impl FnOnce(&Firehose<'_>),
) {
    let name = format!("{} -> {}", connection.peer(), connection.local());
    let user = connection.user().unwrap_or_default();
    tell(&Firehose { namespace, user, connection: &name, channel });
}
