//! A broker over a log in a temporary folder, and short ways to publish and pull.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inver_broker::{
    Broker, BrokerConfig, Clock, Completion, Consumer, ConsumerSpec, DeadLetter, Delivery, ExchangeKind,
    ExchangeSpec, Expiry, HeaderWriter, Mailbox, Message, Namespace, Opened, PermissionScope, Permissions,
    Publisher, PublisherId, Queue, QueueLimits, QueueSpec, SessionSpec, SessionTerms, Sessions,
    SubscriptionOptions, Target, Will,
};
use inver_storage::{BatchBuilder, CommitPolicy, Log, LogOptions, Offset, Read, records};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) broker: Broker,
    pub(crate) config: BrokerConfig,
    pub(crate) options: LogOptions,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::with(BrokerConfig::default())
    }

    pub(crate) fn with(config: BrokerConfig) -> Fixture {
        Fixture::over(config, LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() })
    }

    /// A broker whose clock stands until the test advances it.
    pub(crate) fn manual() -> (Fixture, Clock) {
        let clock = Clock::manual(1_700_000_000_000);
        (Fixture::with(BrokerConfig { clock: clock.clone(), ..BrokerConfig::default() }), clock)
    }

    /// Nearly all that was written has to be read from the disk.
    pub(crate) fn cold() -> Fixture {
        let options =
            LogOptions { commit: CommitPolicy::Os, tail_cache_bytes_max: 1024, ..LogOptions::default() };
        Fixture::over(BrokerConfig::default(), options)
    }

    pub(crate) fn over(config: BrokerConfig, options: LogOptions) -> Fixture {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let broker = open_broker(&dir, &config, &options);
        Fixture { dir, broker, config, options }
    }

    /// Housekeeping runs for as long as the result is there. Needs a runtime.
    pub(crate) fn housekeep(&self) -> DropGuard {
        let shutdown = CancellationToken::new();
        tokio::spawn(self.broker.clone().housekeep(shutdown.clone()));
        shutdown.drop_guard()
    }

    pub(crate) fn namespace(&self) -> Namespace {
        self.broker.default_namespace()
    }

    pub(crate) fn sessions(&self) -> Sessions {
        self.broker.default_sessions()
    }

    /// Ends the log as the process would, and opens it again.
    pub(crate) fn restart(self) -> Fixture {
        self.broker.log().shutdown().expect("shutdown");
        let Fixture { dir, broker, config, options } = self;
        drop(broker);
        let broker = open_broker(&dir, &config, &options);
        Fixture { dir, broker, config, options }
    }
}

fn open_broker(dir: &TempDir, config: &BrokerConfig, options: &LogOptions) -> Broker {
    let log = Log::open(dir.path(), options.clone()).expect("the log opens");
    Broker::open(log, config.clone()).expect("the broker opens")
}

pub(crate) fn committed(namespace: &Namespace, completion: impl Into<Completion>) {
    if let Some(lsn) = completion.into().lsn() {
        namespace.log().wait_committed_blocking(lsn).expect("committed");
    }
}

pub(crate) fn publisher(namespace: &Namespace) -> Publisher {
    Publisher::new(namespace.clone(), PublisherId { origin: "test", session: None })
}

pub(crate) fn message(value: &[u8]) -> Message<'_> {
    Message {
        timestamp_ms: inver_broker::now_ms(),
        key: None,
        value: Some(value),
        headers: Default::default(),
        guaranteed: true,
        lookup: None,
    }
}

/// Publishes one message and waits for its commit; how many received it.
pub(crate) fn publish(namespace: &Namespace, to: Target<'_>, value: &str) -> usize {
    let mut publisher = publisher(namespace);
    let message = Message { timestamp_ms: namespace.clock().now_ms(), ..message(value.as_bytes()) };
    let routed = publisher.publish(to, &message).expect("published");
    committed(namespace, publisher.flush().expect("flushed"));
    routed.destinations
}

/// Publishes with headers.
pub(crate) fn publish_with(
    namespace: &Namespace,
    to: Target<'_>,
    value: &str,
    headers: &HeaderWriter,
) -> usize {
    let mut publisher = publisher(namespace);
    let mut message = message(value.as_bytes());
    message.headers = headers.headers();
    message.timestamp_ms = namespace.clock().now_ms();
    let routed = publisher.publish(to, &message).expect("published");
    committed(namespace, publisher.flush().expect("flushed"));
    routed.destinations
}

pub(crate) fn queue(name: &str) -> Target<'_> {
    Target::Exchange { name: "", routing_key: name.as_bytes(), more_keys: &[] }
}

pub(crate) fn exchange<'a>(name: &'a str, routing_key: &'a str) -> Target<'a> {
    Target::Exchange { name, routing_key: routing_key.as_bytes(), more_keys: &[] }
}

pub(crate) fn attach(subscription: &Arc<inver_broker::Subscription>) -> (Arc<Mailbox>, Consumer) {
    let mailbox = Mailbox::new();
    let consumer = subscription.attach(ConsumerSpec::new(mailbox.clone(), 1)).expect("attached");
    (mailbox, consumer)
}

/// Pulls until so many messages came, or fails after ten seconds.
pub(crate) async fn take(mailbox: &Mailbox, consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut got = Vec::new();
    let all = async {
        loop {
            let pull = consumer.pull(count - got.len(), usize::MAX, &mut got);
            if got.len() == count {
                return;
            }
            if !pull.more {
                mailbox.wait().await;
                mailbox.drain(&mut Vec::new());
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), all).await.is_err() {
        panic!("waited for {count} messages, got {}", got.len());
    }
    got
}

pub(crate) fn values(deliveries: &[Delivery]) -> Vec<String> {
    let text = |d: &Delivery| String::from_utf8(d.record.value.clone().unwrap_or_default().to_vec());
    deliveries.iter().map(|d| text(d).expect("text")).collect()
}

pub(crate) fn pull_now(consumer: &mut Consumer) -> Vec<Delivery> {
    let mut got = Vec::new();
    consumer.pull(1000, usize::MAX, &mut got);
    got
}

pub(crate) fn declare(namespace: &Namespace, name: &str, spec: QueueSpec) -> Arc<Queue> {
    let declared = namespace.declare_queue(name, spec).expect("declared");
    committed(namespace, declared.completion);
    declared.it
}

pub(crate) fn durable(limits: QueueLimits) -> QueueSpec {
    QueueSpec { durable: true, limits, ..QueueSpec::default() }
}

/// A direct exchange that stays.
pub(crate) fn durable_exchange() -> ExchangeSpec {
    ExchangeSpec {
        kind: ExchangeKind::Direct,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Default::default(),
    }
}

/// Dead-letters to this queue.
pub(crate) fn dead_letter_to(queue: &str) -> Option<DeadLetter> {
    Some(DeadLetter { exchange: String::new(), routing_key: Some(queue.as_bytes().to_vec()) })
}

/// Waits until something holds, or fails after ten seconds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), wait).await.is_ok(), "never: {what}");
}

/// The inbox posts 1, its live queue 2, a take-over 3.
pub(crate) fn session_terms() -> Arc<SessionTerms> {
    Arc::new(SessionTerms {
        inbox_token: 1,
        live_token: 2,
        taken_over_token: 3,
        live_messages_max: 100,
        live_bytes_max: 1 << 20,
    })
}

/// What a user may do; none: an anonymous client.
pub(crate) fn permissions(sessions: &Sessions, user: Option<&str>, client_id: &str) -> Arc<Permissions> {
    sessions.access().permissions(PermissionScope {
        user: user.map(Arc::from),
        external_tags: None,
        client_id: client_id.into(),
        namespace: sessions.namespace().name().into(),
        protocol: "test",
        peer: ([127, 0, 0, 1], 0).into(),
    })
}

/// Opens a session on [`session_terms`].
pub(crate) async fn open(sessions: &Sessions, client_id: &str, durable: bool) -> (Arc<Mailbox>, Opened) {
    let mailbox = Mailbox::new();
    let spec = SessionSpec {
        client_id,
        clean_start: false,
        expiry: if durable { Expiry::Never } else { Expiry::AtDetach },
        mailbox: mailbox.clone(),
        terms: &session_terms(),
        permissions: permissions(sessions, None, client_id),
    };
    let opened = sessions.open(spec).await.expect("opened");
    committed(sessions.namespace(), opened.completion);
    (mailbox, opened)
}

pub(crate) fn guaranteed() -> SubscriptionOptions {
    SubscriptionOptions { guaranteed: true, ..SubscriptionOptions::default() }
}

/// Keys and values of all records of a topic's first partition.
pub(crate) fn stored(namespace: &Namespace, topic: &str) -> Vec<(String, Option<String>)> {
    let topic = namespace.topic(topic).expect("topic");
    let partition = topic.partition(0).expect("partition");
    let stream = partition.stream();
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    let (mut at, mut all) = (stream.start(), Vec::new());
    while at < stream.high_watermark() {
        let batches = match stream.read(at, 1 << 20).expect("read") {
            Read::Ready(batches) => batches,
            Read::Cold(cold) => cold.run().expect("cold read"),
            Read::Empty => break,
        };
        for batch in batches {
            for record in records(&batch.bytes).expect("records") {
                let record = record.expect("record");
                at = Offset(batch.base_offset.0 + u64::from(record.offset_delta) + 1);
                all.push((text(record.key.clone().unwrap_or_default()), record.value.clone().map(text)));
            }
        }
    }
    all
}

/// The will to say something at the address `w`.
pub(crate) fn will(value: &[u8], delay_s: u32) -> Will {
    let mut batch = BatchBuilder::new(0);
    batch.push(0, None, &[], Some(value));
    Will {
        address: b"w".to_vec(),
        batch: batch.finish().bytes().to_vec(),
        delay_s,
        expiry_s: None,
        retain: false,
        guaranteed: true,
        origin: "test".into(),
    }
}

/// What is done for `count` things must cost this thread about so many times what it costs for one: a quarter of them is
/// compared, of which it costs four times as much, and sixteen times if each has to pay for all others.
pub(crate) fn grows_with_the_number(what: &str, count: usize, mut work: impl FnMut(usize)) {
    let cpu = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let mut measure = |count| {
        let before = cpu();
        work(count);
        cpu() - before
    };
    let (few, many) = (measure(count / 4), measure(count));
    assert!(many < few * 9, "{what}: {few:?}, four times as many: {many:?}");
}
