//! Subscriptions of a resumed session.

use std::sync::Arc;

use bytes::Bytes;
use inver_broker::{ConsumerSpec, Mailbox, SubscriptionOptions};

use crate::codec::{Shared, split_shared};
use crate::session::Session;
use crate::session::terms::Terms;
use crate::sys;

impl Session {
    /// Takes over the stored subscriptions; shared ones are joined again.
    pub(super) fn restore(&mut self, stored: Vec<(Bytes, SubscriptionOptions)>, mailbox: &Arc<Mailbox>) {
        for (filter, options) in stored {
            let (Ok(text), Some(terms)) = (std::str::from_utf8(&filter), Terms::from_bytes(&options.opaque))
            else {
                tracing::warn!(client_id = self.core.client_id(), "failed to decode a stored subscription");
                continue;
            };
            if split_shared(text) == Shared::No {
                self.subscriptions.insert(text, terms);
                if text.starts_with(sys::PREFIX) {
                    self.server.sys.subscribe(mailbox, self.core.namespace().clock());
                }
                continue;
            }
            let spec = ConsumerSpec::new(mailbox.clone(), self.shared.next_number());
            match self.core.join(&filter, &options, terms.share_mode(), spec) {
                Ok((consumer, _, _)) => self.shared.push(text, terms, consumer),
                Err(error) => {
                    let client_id = self.core.client_id();
                    tracing::warn!(client_id, filter = text, %error, "failed to restore a shared subscription");
                    if let Err(error) = self.core.unsubscribe(&filter) {
                        let client_id = self.core.client_id();
                        tracing::warn!(client_id, filter = text, %error, "failed to remove a shared subscription");
                    }
                }
            }
        }
    }
}
