//! Groups: subscriptions that sessions share. A group is the subscription of its name on a topic, if the filter is
//! the very name of one: any on a log topic, the one of a queue's own name on a queue. Else it is a hidden queue,
//! bound to the hub by the filter, that lives from its first member's coming to its last one's leaving.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use inver_storage::Lsn;

use super::{Session, SubscribeError};
use crate::address::{Filter, Form};
use crate::namespace::{Namespace, QueueError, SubscriptionError};
use crate::queue::Queue;
use crate::spec::{Mode, QueueSpec, Start, SubscriptionOptions, TopicKind};
use crate::subscription::{Consumer, ConsumerSpec, Subscription};
use crate::topic::Topic;

/// The group filters' prefix, as sessions write it.
const SHARE: &str = "$share/";

impl Session {
    /// Joins the group of `$share/group/filter`, given as a whole, which its members share in this mode: the
    /// subscription `group` of the topic whose very name the filter is, else a group of its own on the hub.
    pub fn join(
        &self,
        text: &[u8],
        options: &SubscriptionOptions,
        mode: Mode,
        consumer: ConsumerSpec,
    ) -> Result<(Consumer, bool, Option<Lsn>), SubscribeError> {
        let Some((group, filter)) = split_share(text) else {
            return Err(SubscribeError::Log("not a shared subscription".into()));
        };
        let durable = self.is_durable() && options.guaranteed;
        let core = &self.core;
        let was_member = core.state.lock().filters.contains_key(text);
        let joining = core.namespace.join_group(group, filter, mode, durable, &core.client_id);
        let joined = joining.and_then(|subscription| {
            let consumer = subscription.attach(consumer)?;
            let (existed, lsn) = core.remember_filter(text, options)?;
            Ok((consumer, existed, lsn.or(subscription.made())))
        });
        if joined.is_err() && !was_member {
            core.namespace.leave_group(group, filter, &core.client_id);
        }
        joined
    }

    /// A member of `$share/group/filter` keeps its place and changes the rest.
    pub fn stay(
        &self,
        text: &[u8],
        options: &SubscriptionOptions,
    ) -> Result<(bool, Option<Lsn>), SubscribeError> {
        self.core.remember_filter(text, options)
    }
}

/// Group and filter of a shared subscription's text.
pub(super) fn split_share(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(SHARE.as_bytes())?;
    let slash = rest.iter().position(|b| *b == b'/')?;
    Some((&rest[..slash], &rest[slash + 1..]))
}

/// What has a group's name for its own.
enum Named {
    Topic(Arc<Topic>),
    Queue(Arc<Queue>),
}

impl Namespace {
    /// The subscription of a group; made with its first member.
    fn join_group(
        &self,
        group: &[u8],
        filter: &[u8],
        mode: Mode,
        durable: bool,
        member: &str,
    ) -> Result<Arc<Subscription>, SubscribeError> {
        // Held throughout: a member that comes while the last one leaves makes the group anew.
        let mut members = self.group_members().lock();
        match self.named_group(group, filter) {
            None => {
                let subscription = self.join_on_hub(&mut members, group, filter, durable, member)?;
                subscription.ask_mode(mode).map_err(SubscribeError::ModeClash)?;
                Ok(subscription)
            }
            Some(Named::Topic(topic)) => {
                let group = String::from_utf8_lossy(group);
                self.subscribe(&topic, &group, mode, true, Start::Latest).map_err(|e| match e {
                    SubscriptionError::ModeClash(mode) => SubscribeError::ModeClash(mode),
                    SubscriptionError::Limit(limit) => SubscribeError::Limit(limit),
                    other => SubscribeError::Log(other.to_string()),
                })
            }
            Some(Named::Queue(queue)) => match queue.subscription().mode() {
                present if present == mode => Ok(queue.subscription().clone()),
                present => Err(SubscribeError::ModeClash(present)),
            },
        }
    }

    /// A recovered session is a member of its group again.
    pub(super) fn recover_member(
        &self,
        group: &[u8],
        filter: &[u8],
        durable: bool,
        member: &str,
    ) -> Result<(), SubscribeError> {
        let mut members = self.group_members().lock();
        if self.named_group(group, filter).is_none() {
            self.join_on_hub(&mut members, group, filter, durable, member)?;
        }
        Ok(())
    }

    fn join_on_hub(
        &self,
        members: &mut HashMap<String, HashSet<String>>,
        group: &[u8],
        filter: &[u8],
        durable: bool,
        member: &str,
    ) -> Result<Arc<Subscription>, SubscribeError> {
        let name = group_queue(group, filter);
        let spec = QueueSpec { durable, hidden: true, ..QueueSpec::default() };
        let declared = self.declare_queue(&name, spec).map_err(|e| match e {
            QueueError::Limit(limit) => SubscribeError::Limit(limit),
            other => SubscribeError::Log(other.to_string()),
        })?;
        self.bind_slashed(&declared.it, filter);
        members.entry(name).or_default().insert(member.to_owned());
        Ok(declared.it.subscription().clone())
    }

    /// The topic whose very name a filter is, if its subscription `group` is the group's. A group that is on the hub
    /// already stays there, though such a topic came later.
    fn named_group(&self, group: &[u8], filter: &[u8]) -> Option<Named> {
        if self.queue(&group_queue(group, filter)).is_some() {
            return None;
        }
        let address = Filter::slashed(filter).as_address()?;
        let name = String::from_utf8(address.write(Form::Dotted)).ok()?;
        if let Some(topic) = self.topic(&name).filter(|t| t.kind() == TopicKind::Log) {
            return Some(Named::Topic(topic));
        }
        // A queue's messages are one subscription's, of its own name: only who names it takes of them.
        let queue = self.queue(&name).filter(|_| name.as_bytes() == group)?;
        (!queue.spec().hidden && queue.spec().owner.is_none()).then_some(Named::Queue(queue))
    }

    /// After everything was recovered: groups whose members are all gone end.
    pub(crate) fn end_empty_groups(&self) {
        let members = self.group_members().lock();
        let groups = self.queues().into_iter().filter(|q| q.spec().hidden && q.name().starts_with(SHARE));
        for queue in groups.filter(|q| !members.contains_key(q.name())) {
            if let Err(error) = self.delete_queue(queue.name(), false, false) {
                tracing::warn!(group = queue.name(), %error, "a group without members stays");
            }
        }
    }

    /// Takes a member out of a group; with its last member the group ends.
    pub(super) fn leave_group(&self, group: &[u8], filter: &[u8], member: &str) {
        let name = group_queue(group, filter);
        let mut groups = self.group_members().lock();
        let Some(members) = groups.get_mut(&name) else { return };
        members.remove(member);
        if !members.is_empty() {
            return;
        }
        groups.remove(&name);
        if let Err(error) = self.delete_queue(&name, false, false) {
            tracing::debug!(%error, group = %name, "group already gone");
        }
    }
}

/// The hidden queue that is a group's.
fn group_queue(group: &[u8], filter: &[u8]) -> String {
    format!("{SHARE}{}/{}", String::from_utf8_lossy(group), String::from_utf8_lossy(filter))
}
