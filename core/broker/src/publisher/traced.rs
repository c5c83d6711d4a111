//! The spans of sampled publishes: begun when a message is routed, sent with the flush that stores it.

use std::sync::Arc;

use super::{DEFAULT_EXCHANGE, How, PublishError, Publisher, Routed, Target};
use crate::completion::Completion;
use crate::message::{HeaderWriter, Message, traceparent_of, with_traceparent};
use crate::spec::HUB;
use crate::traces::{About, Publishing, Tracer};

impl Publisher {
    /// Publishes, with a span if the message is sampled. A message that begins a trace gets the header of it.
    #[cold]
    pub(super) fn publish_traced(
        &mut self,
        tracer: &Arc<Tracer>,
        to: Target<'_>,
        message: &Message<'_>,
        how: How<'_>,
    ) -> Result<Routed, PublishError> {
        // What the broker itself has to say begins no trace.
        if self.is_servers || matches!(to, Target::Inbox(_)) {
            return self.route_message(to, message, how);
        }
        let Some(mut span) = tracer.publishing(traceparent_of(message.headers)) else {
            return self.route_message(to, message, how);
        };
        span.about = self.about(to, message);
        let mut longer = HeaderWriter::default();
        let headers = match span.new_traceparent() {
            Some(traceparent) => with_traceparent(message.headers, &traceparent, &mut longer),
            None => message.headers,
        };
        let routed = self.route_message(to, &Message { headers, ..*message }, how);
        match &routed {
            Ok(routed) => {
                span.routed(routed.destinations);
                span.about.error = routed.refused.then(|| "refused".to_owned());
            }
            Err(error) => span.about.error = Some(error.to_string()),
        }
        self.spans.push(span);
        routed
    }

    fn about(&self, to: Target<'_>, message: &Message<'_>) -> About {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (destination, routing_key) = match to {
            Target::Hub(address) => (text(address), None),
            Target::Exchange { name: "", routing_key: b"", .. } => (DEFAULT_EXCHANGE.to_owned(), None),
            Target::Exchange { name: "", routing_key, .. } => (text(routing_key), None),
            Target::Exchange { name, routing_key, .. } => (name.to_owned(), Some(text(routing_key))),
            Target::Inbox(_) => (HUB.to_owned(), None),
        };
        let client_id = self.permissions.as_ref().map(|permissions| permissions.scope().client_id.clone());
        About {
            protocol: self.id.origin,
            client_id: client_id.unwrap_or_default(),
            namespace: self.namespace.name().into(),
            destination,
            routing_key,
            messages: 1,
            body_bytes: message.value.map_or(0, <[u8]>::len),
            ..About::default()
        }
    }

    /// Sends the spans of what was flushed.
    pub(super) fn send_spans(&mut self, completion: &Result<Completion, String>) {
        let Some(tracer) = self.namespace.traces().tracer() else { return };
        for mut span in self.spans.drain(..) {
            if let Err(error) = completion {
                span.about.error.get_or_insert_with(|| error.clone());
            }
            tracer.published(span, completion.clone().unwrap_or_default());
        }
    }
}

/// The spans of publishes that are not flushed; allocated for sampled ones only.
pub(super) type Spans = Vec<Publishing>;
