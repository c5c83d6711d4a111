//! Setting and publishing the will of a session.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use inver_access::{Operation, ResourceKind};
use inver_storage::Entry;
use inver_storage::batch::records;

use super::core::SessionCore;
use super::open::next_id;
use super::registry::Sessions;
use super::will::{KEY, PendingWill, Will, WillRow};
use crate::access::{PermissionScope, Permissions};
use crate::exchange::Inbox;
use crate::message::{HeaderWriter, Message};
use crate::publisher::{Publisher, Target};
use crate::removal::Removal;
use crate::rows;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::{Expiry, PublisherId};

impl Sessions {
    /// Publishes the will of a client whose session ended with the process.
    pub(crate) fn publish_recovered_will(&self, client_id: &str, row: WillRow) {
        let core = SessionCore::new(next_id(), client_id.into(), &self.0, None, Expiry::AtDetach);
        core.state.lock().owner = row.owner.as_deref().map(Arc::from);
        core.publish(&PendingWill { will: row.will, permissions: None });
    }
}

impl SessionCore {
    pub(super) fn set_will(&self, will: Option<PendingWill>, entry: &mut Entry) {
        match &will {
            Some(_) if is_seeded(Bug::ForgetWill) => {}
            Some(pending) if self.is_durable() => {
                self.put_in(entry, Bytes::from_static(KEY), rows::encode(&pending.will));
            }
            // It is published after a crash, which ends the connection and the session.
            Some(pending) => {
                let owner = self.state.lock().owner.as_deref().map(str::to_owned);
                let row = WillRow { will: pending.will.clone(), owner };
                entry.put(rows::WILLS, self.will_key(), rows::encode(&row));
            }
            None if self.is_durable() || self.state.lock().will.is_some() => self.delete_will(entry),
            None => {}
        }
        self.state.lock().will = will.map(Box::new);
    }

    fn will_key(&self) -> Bytes {
        rows::key(self.namespace().id(), &[self.client_id().as_bytes()])
    }

    fn delete_will(&self, entry: &mut Entry) {
        if self.is_durable() {
            self.delete_in(entry, KEY);
        } else {
            entry.delete(rows::WILLS, self.will_key());
        }
    }

    /// Removes the row of a will that is not published, with the whole namespace.
    pub(super) fn remove_will(&self, removal: &mut Removal<'_>) {
        let will = self.state.lock().will.take();
        if will.is_some() && !self.is_durable() {
            removal.row(rows::WILLS, self.will_key());
        }
    }

    /// Publishes the will, if there is one.
    pub(super) fn publish_will(self: &Arc<Self>) {
        let will = self.state.lock().will.take();
        will.into_iter().for_each(|will| self.publish(&will));
    }

    /// Publishes a will that was taken, and deletes its row, in one entry. One that its client may not publish any more
    /// is dropped.
    pub(super) fn publish(self: &Arc<Self>, pending: &PendingWill) {
        let PendingWill { will, permissions } = pending;
        let permissions = permissions.clone().or_else(|| self.permissions_of_owner());
        if permissions.as_ref().is_some_and(|permissions| !may_publish(permissions, will)) {
            self.drop_will(will);
            return;
        }
        let batch = Bytes::copy_from_slice(&will.batch);
        let Some(Ok(record)) = records(&batch).ok().and_then(|mut r| r.next()) else { return };
        let origin = self.namespace().origin(&will.origin);
        let mut publisher =
            Publisher::new(self.namespace().clone(), PublisherId { origin, session: Some(self.id()) });
        if let Some(permissions) = permissions {
            publisher = publisher.with_permissions(permissions);
        }
        // Its expiry starts now, not when the will was set.
        let now = self.namespace().clock().steady_ms();
        let mut writer = HeaderWriter::default();
        let headers = will.headers(&record, now, &mut writer);
        let message = Message { timestamp_ms: now, headers, ..Message::of_record(&record, will.guaranteed) };
        let published = match will.retain {
            false => publisher.publish(Target::Hub(&will.address), &message),
            true => publisher.publish_retained(&will.address, &message).map(|(routed, retained)| {
                if let Err(error) = retained {
                    tracing::warn!(client_id = &**self.client_id(), %error, "failed to retain a will");
                }
                routed
            }),
        };
        if !is_seeded(Bug::RepeatWill) {
            publisher.attach(|entry| self.delete_will(entry));
        }
        if let Err(error) = published.and_then(|_| publisher.flush()) {
            tracing::warn!(client_id = &**self.client_id(), %error, "failed to publish a will");
        }
    }
    /// What the session's user may do now, at an unknown address; none if the session belongs to nobody.
    fn permissions_of_owner(&self) -> Option<Arc<Permissions>> {
        let owner = self.state.lock().owner.clone()?;
        let registry = self.registry()?;
        Some(registry.access.permissions(PermissionScope {
            user: Some(owner),
            external_tags: None,
            client_id: self.client_id().clone(),
            namespace: self.namespace().name().into(),
            protocol: "",
            peer: SocketAddr::from(([0, 0, 0, 0], 0)),
        }))
    }

    fn drop_will(&self, will: &Will) {
        let address = String::from_utf8_lossy(&will.address);
        let client_id = &**self.client_id();
        tracing::info!(client_id, %address, "will dropped: its client may not publish there");
        let mut entry = Entry::new();
        self.delete_will(&mut entry);
        if let Err(error) = self.submit(entry) {
            self.log_rejected(&error);
        }
    }
}

fn may_publish(permissions: &Permissions, will: &Will) -> bool {
    let address = String::from_utf8_lossy(&will.address);
    permissions.may(ResourceKind::Address, &address, Operation::Write)
}
