//! Parts of a broker for unit tests: a log in memory without threads, and a clock that stands still.

use std::sync::{Arc, Weak};

use inver_storage::medium::fake::FakeMedium;
use inver_storage::{Log, LogOptions, SubmitError, SystemClock};

use crate::audit::{Audit, AuditConfig};
use crate::clock::{Blocking, Clock};
use crate::completion::Completion;
use crate::context::Context;
use crate::message::Message;
use crate::namespace::Namespace;
use crate::retained::Retained;
use crate::spec::{BrokerConfig, NamespaceSpec};
use crate::subscription::{DropSink, Dropped, Subscription};
use crate::telemetry::Counters;

/// An audit log without a topic.
pub(crate) fn audit(clock: &Clock) -> Audit {
    Audit::new(clock.clone(), &AuditConfig::default())
}

/// What the namespace of the id 0 shares, over a log.
pub(crate) fn context(log: Log, clock: &Clock) -> Arc<Context> {
    let counters = Counters::of("test");
    Context::new(0, log, clock.clone(), Blocking::default(), Arc::default(), counters, audit(clock))
}

/// A namespace without dead-lettering.
pub(crate) fn namespace(config: BrokerConfig) -> Namespace {
    namespace_with(config, LogOptions::default())
}

/// The same over a log with these options.
pub(crate) fn namespace_with(config: BrokerConfig, options: LogOptions) -> Namespace {
    let medium = Arc::new(FakeMedium::new(1));
    let log = Log::open_manual(medium, Arc::new(SystemClock), options).unwrap();
    let clock = Clock::manual(1_000_000);
    let context = context(log, &clock);
    let retained = Retained::new(vec![0; 4], clock, Vec::new());
    let config = Arc::new(config);
    Namespace::new(0, "test", NamespaceSpec::default(), context, &config, retained, |_: Weak<_>| {
        Arc::new(Discard)
    })
}

/// Removes dropped messages from their queue.
struct Discard;

impl DropSink for Discard {
    fn dropped(&self, from: &Arc<Subscription>, dropped: &[Dropped]) -> Result<Completion, SubmitError> {
        from.ack_dropped(dropped.iter().map(|d| d.id).collect())
    }

    fn refused(&self, _by: &Subscription, _message: &Message<'_>, _left: &mut u8) -> Option<Completion> {
        None
    }
}
