//! What the firehose is told of a channel.

use inver_broker::{Delivery, LiveConnection, Namespace};

use super::channel::Channel;
use super::shared::Shared;
use crate::firehose::Firehose;
use crate::map::{Publish, Renderer};

impl Channel {
    /// A client published a message to these queues.
    #[cold]
    pub(super) fn trace_published(
        &self,
        publish: &Publish<'_>,
        more_keys: &[&[u8]],
        queues: &[String],
        namespace: &Namespace,
        connection: &LiveConnection,
    ) {
        self.with_firehose(namespace, connection, |it| it.published(publish, more_keys, queues));
    }

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
        self.with_firehose(&shared.client.namespace, &shared.connection, |firehose| {
            for delivery in deliveries {
                let source = delivery.topic.as_deref().unwrap_or(queue);
                let message = renderer.render(&delivery.record, source, table_max, shared.now_ms);
                firehose.delivered(queue, delivery.redelivered > 0, &message);
            }
        });
    }

    fn with_firehose(
        &self,
        namespace: &Namespace,
        connection: &LiveConnection,
        tell: impl FnOnce(&Firehose<'_>),
    ) {
        let name = format!("{} -> {}", connection.peer(), connection.local());
        let user = connection.user().unwrap_or_default();
        tell(&Firehose { namespace, user, connection: &name, channel: self.number });
    }
}
