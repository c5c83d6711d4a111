//! Events of a namespace for programs: what is told of its queues, exchanges, bindings and policies.

use super::Namespace;
use crate::events::{Events, Facts};
use crate::exchange::{Exchange, RouteTarget};
use crate::queue::Queue;
use crate::spec::PolicySpec;
use crate::value::{Arguments, Value};

/// The exchange of events, in the default namespace.
pub(super) const EVENTS: &str = "amq.rabbitmq.event";

/// Bindings of a queue or exchange whose end is told with it.
const BINDINGS_TOLD_MAX: usize = 10_000;

/// What is told of a binding.
pub(super) struct BindingFacts<'a> {
    pub(super) source: &'a str,
    pub(super) target: &'a RouteTarget,
    pub(super) key: &'a [u8],
    pub(super) arguments: &'a Arguments,
}

impl Namespace {
    /// Tells programs of something that was done in it through this handle.
    pub fn tell(&self, name: &'static str, facts: impl FnOnce() -> Facts) {
        self.events().tell(name, || {
            let facts = facts().within(&self.0.name);
            match self.client() {
                Some(client) => facts.by(client.user()),
                None => facts,
            }
        });
    }

    pub(super) fn events(&self) -> &Events {
        self.0.context.audit.events()
    }

    /// Notes whether somebody listens to events. Under the topology lock, after each change of bindings.
    pub(super) fn note_listeners(&self) {
        if let Some(exchange) = &self.0.event_exchange {
            self.events().set_heard(exchange.binding_count() > 0);
        }
    }

    pub(super) fn tell_queue(&self, name: &'static str, queue: &Queue) {
        if is_hidden(queue) {
            return;
        }
        let spec = queue.spec();
        self.tell(name, || {
            let kind = spec.arguments.get("x-queue-type").and_then(Value::as_str).unwrap_or("classic");
            Facts::new([
                ("name", queue.name().into()),
                ("type", kind.into()),
                ("durable", spec.durable.into()),
                ("auto_delete", spec.auto_delete.into()),
                ("exclusive", spec.owner.is_some().into()),
                ("arguments", spec.arguments.clone().into()),
            ])
        });
    }

    pub(super) fn tell_exchange(&self, name: &'static str, exchange: &Exchange) {
        self.tell(name, || {
            let spec = exchange.spec();
            Facts::new([
                ("name", exchange.name().into()),
                ("type", spec.type_name().into()),
                ("durable", spec.durable.into()),
                ("auto_delete", spec.auto_delete.into()),
                ("internal", spec.internal.into()),
                ("arguments", spec.arguments.clone().into()),
            ])
        });
    }

    pub(super) fn tell_binding(&self, name: &'static str, of: &BindingFacts<'_>) {
        let (kind, destination) = match of.target {
            RouteTarget::Queue(queue) => ("queue", queue.name()),
            RouteTarget::Exchange(exchange) => ("exchange", exchange.name()),
            RouteTarget::Inbox { .. } => return,
        };
        self.tell(name, || {
            Facts::new([
                ("source_name", of.source.into()),
                ("source_kind", "exchange".into()),
                ("destination_name", destination.into()),
                ("destination_kind", kind.into()),
                ("routing_key", Value::Text(of.key.to_vec())),
                ("arguments", of.arguments.clone().into()),
            ])
        });
    }

    /// Tells of the end of the bindings that lead to a queue or an exchange, before they end with it.
    pub(super) fn tell_bindings_to(&self, target: &RouteTarget) {
        let is_hidden = matches!(target, RouteTarget::Queue(queue) if is_hidden(queue));
        if is_hidden || !self.events().is_heard() {
            return;
        }
        let (bindings, _) = self.0.origins.bindings_to(target, 0, BINDINGS_TOLD_MAX);
        for binding in bindings {
            let (source, key, arguments) = (binding.source.name(), &*binding.key, &binding.arguments);
            self.tell_binding("binding.deleted", &BindingFacts { source, target, key, arguments });
        }
    }

    /// Tells of the end of the bindings that lead from an exchange, before they end with it.
    pub(super) fn tell_bindings_from(&self, exchange: &Exchange) {
        if !self.events().is_heard() {
            return;
        }
        let mut left = BINDINGS_TOLD_MAX;
        exchange.for_each_binding(|binding| {
            // That of an exchange to itself is one of those that lead to it.
            let to_itself =
                matches!(&binding.target, RouteTarget::Exchange(target) if target.name() == exchange.name());
            if left > 0 && !to_itself {
                left -= 1;
                let (source, target, key) = (exchange.name(), &binding.target, &*binding.key);
                let arguments = &binding.terms().arguments;
                self.tell_binding("binding.deleted", &BindingFacts { source, target, key, arguments });
            }
        });
    }

    pub(super) fn tell_policy(&self, name: &'static str, policy: &str, spec: Option<&PolicySpec>) {
        self.tell(name, || {
            let mut facts = Facts::new([("name", policy.into())]);
            if let Some(spec) = spec {
                facts.more.extend([
                    ("pattern".to_owned(), spec.pattern.as_str().into()),
                    ("apply-to".to_owned(), spec.applies_to.as_str().into()),
                    ("priority".to_owned(), Value::Int(spec.priority.into())),
                    ("definition".to_owned(), spec.definition.clone().into()),
                ]);
            }
            facts
        });
    }
}

/// Whether a queue is one that no client declared.
fn is_hidden(queue: &Queue) -> bool {
    queue.spec().hidden && queue.spec().owner.is_none()
}
