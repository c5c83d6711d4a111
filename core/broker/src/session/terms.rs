//! What a connection asks for when it opens a session, and what a protocol agrees for all of them.

use std::sync::Arc;

use crate::access::Permissions;
use crate::mailbox::Mailbox;
use crate::spec::Expiry;

/// What a connection asks for.
pub struct SessionSpec<'a> {
    /// The client's id.
    pub client_id: &'a str,
    /// An existing session is ended first.
    pub clean_start: bool,
    /// How long the session outlives its connection.
    pub expiry: Expiry,
    /// Woken with the tokens of the terms.
    pub mailbox: Arc<Mailbox>,
    /// Tokens and bounds.
    pub terms: &'a Arc<SessionTerms>,
    /// What the client may do.
    pub permissions: Arc<Permissions>,
}

impl SessionSpec<'_> {
    /// The client's id, of which its permissions mostly have a copy.
    pub(super) fn shared_client_id(&self) -> Arc<str> {
        let known = &self.permissions.scope().client_id;
        if **known == *self.client_id { known.clone() } else { self.client_id.into() }
    }

    /// The user that a new session belongs to; none while permissions are not enforced, and for an anonymous client.
    pub(super) fn owner(&self) -> Option<Arc<str>> {
        self.permissions.scope().user.clone().filter(|_| self.permissions.is_enforced())
    }
}

/// What a protocol agrees for all its sessions: the tokens that wake their mailboxes, and bounds of memory.
#[derive(Clone, Debug)]
pub struct SessionTerms {
    /// The inbox has messages.
    pub inbox_token: u64,
    /// The live queue has messages.
    pub live_token: u64,
    /// Another connection wants the session: drop it at once.
    pub taken_over_token: u64,
    /// Messages in the live queue.
    pub live_messages_max: u64,
    /// Bytes in the live queue.
    pub live_bytes_max: u64,
}
