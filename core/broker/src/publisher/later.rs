//! Delayed messages: they are stored in a queue of the namespace until they are due, with the place where they go then.

use std::sync::Arc;

use super::{PublishError, Publisher, Routed, Target, may_write_address};
use crate::access::Permissions;
use crate::address::{Form, rewrite};
use crate::limit_checks::LimitCheck;
use crate::message::{
    DELAYED_TO, DelayedTarget, DelayedTo, HeaderView, HeaderWriter, Message, Property, Rights,
};
use crate::namespace::{DelayedMessage, Namespace, QueueError};
use crate::receivers::ReceiverSet;
use crate::spec::{ExchangeSpec, PublisherId};
use inver_access::{Operation, ResourceKind};

/// The longest delay, milliseconds: ten years.
const DELAY_MS_MAX: i64 = 315_360_000_000;

/// The header with a message's delay, milliseconds, for exchanges that delay.
const DELAY_HEADER: &str = "x-delay";

/// What a delayed message costs: it is written once, and the queues of delayed messages are asked how many they hold.
const LATER_COST: usize = 2;

impl Publisher {
    /// Publishes a message `delay_ms` after its timestamp, as then routed. It may be published now, and the target is there now:
    /// both are not asked again. With `retain`, it sets the retained value of its address then. A delay of more than ten
    /// years is ten years. Refused at the bound of delayed messages.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub fn publish_later(
        &mut self,
        to: Target<'_>,
        message: &Message<'_>,
        delay_ms: i64,
        retain: bool,
    ) -> Result<Routed, PublishError> {
        self.check(to)?;
        self.put_later(to, message, delay_ms, retain)
    }

    /// Whether a client with these permissions could have published a delayed message: such a client may see it and withdraw
    /// it.
    ///
    /// # Errors
    /// What it may not do.
    pub fn check_delayed(
        namespace: &Namespace,
        permissions: &Arc<Permissions>,
        message: &DelayedMessage,
    ) -> Result<(), PublishError> {
        let more_keys: Vec<&[u8]> = message.more_keys.iter().map(Vec::as_slice).collect();
        let to = match &message.exchange {
            Some(name) => Target::Exchange { name, routing_key: &message.key, more_keys: &more_keys },
            None => Target::Hub(&message.key),
        };
        let publisher = Publisher::new(namespace.clone(), PublisherId::default());
        match publisher.with_permissions(permissions.clone()).check(to) {
            Err(error @ (PublishError::Refused(_) | PublishError::KeyRefused { .. })) => Err(error),
            // Its exchange may be gone since.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The delay of a message, if the exchange delays it.
    pub(super) fn delay_of(&self, exchange: &ExchangeSpec, message: &Message<'_>) -> Option<i64> {
        if !exchange.delays() || self.is_delivering {
            return None;
        }
        let stored = self.stored_lookup(message);
        let header = message.lookup.unwrap_or(&stored).get(DELAY_HEADER)?.as_int()?;
        (header > 0).then(|| i64::try_from(header).unwrap_or(i64::MAX))
    }

    pub(super) fn put_later(
        &mut self,
        to: Target<'_>,
        message: &Message<'_>,
        delay_ms: i64,
        retain: bool,
    ) -> Result<Routed, PublishError> {
        let refused = Ok(Routed { destinations: 1, refused: true, is_split: false });
        let target = match to {
            Target::Exchange { name, routing_key, more_keys } => {
                DelayedTarget::Exchange { name, routing_key, more_keys: more_keys.to_vec() }
            }
            Target::Hub(address) => DelayedTarget::Hub { address, retain },
            Target::Inbox(_) => return refused,
        };
        if !self.is_exempt && (self.namespace.is_full() || self.namespace.has_all_delayed()) {
            return refused;
        }
        let delay_ms = delay_ms.min(DELAY_MS_MAX);
        let queue = match self.namespace.delayed_queue(delay_ms) {
            Ok(queue) => queue,
            Err(QueueError::Log(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(namespace = self.namespace.name(), %error, "failed to delay a message");
                return refused;
            }
        };
        let due_ms = message.timestamp_ms.saturating_add(delay_ms);
        let rights = self.rights(&target);
        let ttl_ms = message.headers.expires_ms.map(|at| at.saturating_sub(message.timestamp_ms));
        let guaranteed = message.guaranteed;
        let value = DelayedTo { target, ttl_ms, guaranteed, rights }.encode();
        let view = HeaderView::of_encoded(message.headers.bytes, message.headers.count);
        let mut headers = HeaderWriter::default();
        headers.begin_like(&view, Some(due_ms));
        headers.put(Property::Other(DELAYED_TO, &value));
        view.typed_properties()
            .filter(|property| !matches!(property, Property::ExpiresMs(_)))
            .for_each(|property| headers.put(property));
        headers.user_of(&view);
        let stored = Message { headers: headers.headers(), lookup: None, ..*message };
        let mut set = ReceiverSet::default();
        set.add_queue(&queue);
        self.write_batch.add(&Arc::new(set), None, &stored);
        self.checks.note(LimitCheck { queue, at_ms: due_ms, ttl: true, counted_bytes: 0 });
        self.published += 1;
        self.cost += LATER_COST;
        Ok(Routed { destinations: 1, refused: false, is_split: false })
    }

    /// What the publisher may do with a message once it is due.
    fn rights(&self, target: &DelayedTarget<'_>) -> Rights {
        let Some(permissions) = self.restricting() else { return Rights::ALL };
        let topic = |key: &[u8]| {
            permissions.may(ResourceKind::Topic, &String::from_utf8_lossy(key), Operation::Write)
        };
        match target {
            // It may write to the address itself.
            DelayedTarget::Hub { address, .. } => {
                Rights { appends: topic(&rewrite(Form::Slashed, Form::Dotted, address)), passes_on: true }
            }
            DelayedTarget::Exchange { name: "", .. } => Rights::ALL,
            // Any other exchange may lead to the hub.
            DelayedTarget::Exchange { routing_key, more_keys, .. } => {
                let keys = || std::iter::once(routing_key).chain(more_keys);
                let address =
                    |key: &[u8]| may_write_address(permissions, &rewrite(Form::Dotted, Form::Slashed, key));
                Rights { appends: keys().all(|key| topic(key)), passes_on: keys().all(|key| address(key)) }
            }
        }
    }
}
