//! Log lines about inboxes that dropped messages: one a minute for each session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::namespace::Namespace;

/// Time between two lines about one session.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sessions remembered; beyond them no further one has a line until older ones are forgotten.
const SESSIONS_MAX: usize = 1000;

/// The sessions that had a line, with the messages dropped since then.
#[derive(Default)]
pub(super) struct Overflows(Mutex<HashMap<Arc<str>, Noted>>);

struct Noted {
    at: Instant,
    dropped: u64,
}

impl Overflows {
    /// Notes dropped messages of a client, and says so if it was not said lately.
    pub(super) fn log(&self, namespace: &Namespace, client: &Arc<str>, dropped: u64) {
        let now = namespace.clock().now();
        let mut noted = self.0.lock();
        let is_recent = |noted: &Noted| now.duration_since(noted.at) < INTERVAL;
        if let Some(known) = noted.get_mut(client).filter(|known| is_recent(known)) {
            known.dropped += dropped;
            return;
        }
        let before = noted.remove(client).map_or(0, |known| known.dropped);
        if noted.len() >= SESSIONS_MAX {
            noted.retain(|_, noted| is_recent(noted));
        }
        if noted.len() < SESSIONS_MAX {
            noted.insert(client.clone(), Noted { at: now, dropped: 0 });
            tracing::warn!(
                client_id = &**client,
                namespace = namespace.name(),
                dropped = dropped + before,
                "the inbox of a session is full, its oldest messages are dropped: limits.inbox_messages_max or \
                 limits.inbox_bytes_max"
            );
        }
    }
}
