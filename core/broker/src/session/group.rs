//! Groups: subscriptions that sessions share (`$share/group/filter`). If the filter is the name of a topic, the group is
//! the subscription of its name on that topic: any on a log topic, the one of the queue's own name on a queue.
//! Otherwise it is a hidden queue, bound to the hub by the filter, from its first member's joining to its last
//! member's leaving.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use inver_access::{Operation, ResourceKind};

use super::core::SessionCore;
use super::registry::{Registry, Sessions};
use super::share::{SHARE, group_queue, split_share};
use super::{Session, SubscribeError};
use crate::access::Permissions;
use crate::address::{Filter, Form};
use crate::completion::Completion;
use crate::exchange::Inbox;
use crate::namespace::{QueueError, SubscriptionError};
use crate::queue::Queue;
use crate::spec::{Mode, QueueSpec, Start, SubscriptionOptions, TopicKind};
use crate::subscription::{Consumer, ConsumerSpec, Subscription};
use crate::topic::Topic;

impl Session {
    /// Joins the group of `$share/group/filter`, given as a whole, in this mode. A session that is a member of it already
    /// keeps its place, but gets messages only while its client may receive them. The consumer, whether the subscription
    /// existed, and when it is durable.
    pub fn join(
        &self,
        text: &[u8],
        options: &SubscriptionOptions,
        mode: Mode,
        consumer: ConsumerSpec,
    ) -> Result<(Consumer, bool, Completion), SubscribeError> {
        let Some((group, filter)) = split_share(text) else { return Err(SubscribeError::NotShared) };
        let durable = self.is_durable() && options.guaranteed;
        let core = &self.core;
        let Some(registry) = core.registry() else { return Err(SubscribeError::NotShared) };
        let was_member = core.has_filter(text);
        if !was_member {
            self.check_join(text)?;
        }
        let joining = registry.join_group(group, filter, mode, durable, core.id());
        let joined = joining.and_then(|subscription| {
            let consumer = subscription.attach(consumer)?;
            let (existed, completion) = core.put_filter(text, options)?;
            Ok((consumer, existed, completion.and(subscription.made())))
        });
        match &joined {
            // Messages may move there from the group.
            Ok(_) if options.guaranteed => self.open_inbox(),
            Err(_) if !was_member => registry.leave_group(group, filter, core.id()),
            _ => {}
        }
        joined
    }

    /// Changes the options of a member of `$share/group/filter`, which keeps its place.
    pub fn stay(
        &self,
        text: &[u8],
        options: &SubscriptionOptions,
    ) -> Result<(bool, Completion), SubscribeError> {
        self.check_join(text)?;
        let stayed = self.core.put_filter(text, options)?;
        if options.guaranteed {
            self.open_inbox();
        }
        Ok(stayed)
    }

    fn check_join(&self, text: &[u8]) -> Result<(), SubscribeError> {
        let permissions = self.permissions();
        let may_join = permissions.is_unrestricted()
            || self.core.group_of(text).is_some_and(|group| group.may_join(permissions));
        if may_join {
            return Ok(());
        }
        match self.core.group_of(text) {
            Some(Group::Named { name, .. })
                if !permissions.may(ResourceKind::Topic, &name, Operation::Read) =>
            {
                permissions.denied(ResourceKind::Topic, &name, Operation::Read);
            }
            Some(Group::Named { group, .. }) => {
                permissions.denied(ResourceKind::Group, &group.unwrap_or_default(), Operation::Read);
            }
            Some(Group::Hub { filter }) if permissions.may_filter(&filter, Operation::Subscribe) => {
                permissions.denied_filter(&filter, Operation::Receive);
            }
            Some(Group::Hub { filter }) => permissions.denied_filter(&filter, Operation::Subscribe),
            None => {}
        }
        Err(SubscribeError::NotAllowed)
    }
}

/// What a shared subscription reads.
pub(super) enum Group {
    /// Messages of the hub that the filter matches.
    Hub { filter: String },
    /// The subscription `group` of the topic of this name; or, without it, the queue of this name.
    Named { name: String, group: Option<String> },
}

impl Group {
    /// Whether a client may get every message of it: each message goes to one member only.
    pub(super) fn may_receive(&self, permissions: &Permissions) -> bool {
        match self {
            Group::Hub { filter } => permissions.may_filter(filter, Operation::Receive),
            Group::Named { name, .. } => permissions.may(ResourceKind::Topic, name, Operation::Read),
        }
    }

    fn may_join(&self, permissions: &Permissions) -> bool {
        let may_subscribe = match self {
            Group::Hub { filter } => permissions.may_filter(filter, Operation::Subscribe),
            // Its subscription of that name may be other clients': their messages would be taken from them.
            Group::Named { group, .. } => group
                .as_ref()
                .is_none_or(|group| permissions.may(ResourceKind::Group, group, Operation::Read)),
        };
        may_subscribe && self.may_receive(permissions)
    }
}

impl SessionCore {
    /// What the shared subscription of this text reads; none if it is no such text.
    pub(super) fn group_of(&self, text: &[u8]) -> Option<Group> {
        let (group, filter) = split_share(text)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let named = |name: &str, group| Group::Named { name: name.to_owned(), group };
        Some(match self.registry()?.named_group(group, filter) {
            None => Group::Hub { filter: text(filter) },
            Some(Named::Topic(topic)) => named(topic.name(), Some(text(group))),
            Some(Named::Queue(queue)) => named(queue.name(), None),
        })
    }
}

/// The topic or queue whose subscription a group is.
enum Named {
    Topic(Arc<Topic>),
    Queue(Arc<Queue>),
}

impl Registry {
    /// The subscription of a group; created with its first member.
    fn join_group(
        &self,
        group: &[u8],
        filter: &[u8],
        mode: Mode,
        durable: bool,
        member: u64,
    ) -> Result<Arc<Subscription>, SubscribeError> {
        // Held throughout: a member that joins while the last one leaves creates the group again.
        let mut members = self.groups.lock();
        match self.named_group(group, filter) {
            None => {
                let subscription = self.join_on_hub(&mut members, group, filter, durable, member)?;
                subscription.ask_mode(mode).map_err(SubscribeError::ModeClash)?;
                Ok(subscription)
            }
            Some(Named::Topic(topic)) => {
                let group = String::from_utf8_lossy(group);
                let subscribed = self.namespace.subscribe(&topic, &group, mode, true, Start::Latest);
                subscribed.map_err(|error| match error {
                    SubscriptionError::ModeClash(mode) => SubscribeError::ModeClash(mode),
                    SubscriptionError::Limit(limit) => SubscribeError::Limit(limit),
                    SubscriptionError::Log(error) => SubscribeError::Log(error),
                    other => SubscribeError::Subscription(other),
                })
            }
            Some(Named::Queue(queue)) => match queue.subscription().mode() {
                present if present == mode => Ok(queue.subscription().clone()),
                present => Err(SubscribeError::ModeClash(present)),
            },
        }
    }

    /// Restores a session's membership of a group.
    pub(super) fn recover_member(
        &self,
        group: &[u8],
        filter: &[u8],
        durable: bool,
        member: u64,
    ) -> Result<(), SubscribeError> {
        let mut members = self.groups.lock();
        if self.named_group(group, filter).is_none() {
            self.join_on_hub(&mut members, group, filter, durable, member)?;
        }
        Ok(())
    }

    fn join_on_hub(
        &self,
        members: &mut HashMap<String, HashSet<u64>>,
        group: &[u8],
        filter: &[u8],
        durable: bool,
        member: u64,
    ) -> Result<Arc<Subscription>, SubscribeError> {
        let name = group_queue(group, filter);
        let spec = QueueSpec { durable, hidden: true, ..QueueSpec::default() };
        let declared = self.namespace.declare_queue(&name, spec).map_err(|error| match error {
            QueueError::Limit(limit) => SubscribeError::Limit(limit),
            QueueError::Log(error) => SubscribeError::Log(error),
            other => SubscribeError::Queue(other),
        })?;
        self.namespace.bind_slashed(&declared.it, filter);
        members.entry(name).or_default().insert(member);
        Ok(declared.it.subscription().clone())
    }

    /// The topic or queue that the filter names, if its subscription `group` is the group's. A group that is on the hub
    /// already stays there, even if such a topic is created later.
    fn named_group(&self, group: &[u8], filter: &[u8]) -> Option<Named> {
        let namespace = &self.namespace;
        if namespace.queue(&group_queue(group, filter)).is_some() {
            return None;
        }
        let address = Filter::slashed(filter).as_address()?;
        let name = String::from_utf8(address.write(Form::Dotted)).ok()?;
        if let Some(topic) = namespace.topic(&name).filter(|t| t.kind() == TopicKind::Log) {
            return Some(Named::Topic(topic));
        }
        // A queue's messages belong to the one subscription of its own name.
        let queue = namespace.queue(&name).filter(|_| name.as_bytes() == group)?;
        (!queue.spec().hidden && queue.spec().owner.is_none()).then_some(Named::Queue(queue))
    }

    /// Removes a member from a group; the group ends with its last member.
    pub(super) fn leave_group(&self, group: &[u8], filter: &[u8], member: u64) {
        let name = group_queue(group, filter);
        let mut groups = self.groups.lock();
        let Some(members) = groups.get_mut(&name) else { return };
        members.remove(&member);
        if !members.is_empty() {
            return;
        }
        groups.remove(&name);
        if let Err(error) = self.namespace.delete_queue(&name, false, false) {
            tracing::warn!(%error, group = %name, "failed to delete the queue of an empty group");
        }
    }
}

impl Sessions {
    /// Ends groups without members, once everything is recovered.
    pub(crate) fn end_empty_groups(&self) {
        let members = self.0.groups.lock();
        let queues = self.namespace().queues();
        let groups = queues.into_iter().filter(|q| q.spec().hidden && q.name().starts_with(SHARE));
        for queue in groups.filter(|q| !members.contains_key(q.name())) {
            if let Err(error) = self.namespace().delete_queue(queue.name(), false, false) {
                tracing::warn!(group = queue.name(), %error, "failed to delete the queue of an empty group");
            }
        }
    }
}
