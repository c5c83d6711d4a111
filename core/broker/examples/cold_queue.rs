//! Measures how fast a queue drops messages that are on the disk only: expired ones, and those over a length limit.
//!
//! `cargo run --release -p inver-broker --example cold_queue -- [messages]` (default 1,000,000, of 100 bytes each). The
//! tail cache has 1 MiB. Each line is one variant: limit, commit policy, with or without a dead-letter exchange, after a
//! restart or not. Rates count from the expiry of the last message, or from the first publish beyond the length limit.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a failed measurement ends the program")]

use std::path::Path;
use std::time::{Duration, Instant};

use inver_broker::{
    Broker, BrokerConfig, Completion, DeadLetter, Message, Namespace, Publisher, PublisherId, QueueLimits,
    QueueSpec, Target,
};
use inver_storage::{CommitPolicy, Log, LogOptions};
use tokio_util::sync::CancellationToken;

const VALUE: [u8; 100] = [b'x'; 100];
const MESSAGES_A_BATCH: u64 = 100;
const BOUND: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Ttl,
    Length,
    Bytes,
}

#[derive(Clone, Copy)]
struct Variant {
    limit: Limit,
    commit: CommitPolicy,
    dead_letters: bool,
    restart: bool,
}

fn open(folder: &Path, commit: CommitPolicy) -> Broker {
    let options = LogOptions { commit, tail_cache_bytes_max: 1 << 20, ..LogOptions::default() };
    let log = Log::open(folder, options).expect("the log opens");
    Broker::open(log, BrokerConfig::default()).expect("the broker opens")
}

/// Publishes as one client that waits for each [`BOUND`] messages, after which `check` is called.
async fn publish(ns: &Namespace, messages: u64, mut check: impl FnMut()) {
    let mut publisher = Publisher::new(ns.clone(), PublisherId { origin: "example", session: None });
    let mut last = Completion::Now;
    for number in 1..=messages {
        let message = Message {
            timestamp_ms: inver_broker::now_ms(),
            key: None,
            value: Some(&VALUE),
            headers: Default::default(),
            guaranteed: true,
            lookup: None,
        };
        let to = Target::Exchange { name: "", routing_key: b"q", more_keys: &[] };
        publisher.publish(to, &message).expect("published");
        if number % MESSAGES_A_BATCH == 0 || number == messages {
            last = last.and(publisher.flush().expect("flushed"));
        }
        if number % BOUND == 0 || number == messages {
            if let Some(lsn) = last.lsn() {
                ns.log().wait_committed(lsn).await.expect("committed");
            }
            check();
        }
    }
}

async fn measure(messages: u64, variant: Variant) {
    let Variant { limit, commit, dead_letters, restart } = variant;
    let ttl = Duration::from_millis(5_000 + messages / 50);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut broker = open(folder.path(), commit);
    let mut ns = broker.default_namespace();
    let dead_letter = DeadLetter { exchange: String::new(), routing_key: Some(b"dead".to_vec()) };
    let limits = QueueLimits {
        message_ttl_ms: (limit == Limit::Ttl).then_some(ttl.as_millis() as u64),
        messages_max: (limit == Limit::Length).then_some(BOUND),
        bytes_max: (limit == Limit::Bytes).then_some(BOUND * VALUE.len() as u64),
        dead_letter: dead_letters.then_some(dead_letter),
        ..QueueLimits::default()
    };
    for (name, limits) in [("dead", QueueLimits::default()), ("q", limits)] {
        let spec = QueueSpec { durable: true, limits, ..QueueSpec::default() };
        ns.declare_queue(name, spec).expect("declared");
    }
    let is_ttl = limit == Limit::Ttl;
    publish(&ns, if is_ttl { messages } else { BOUND }, || {}).await;
    let expires = Instant::now() + ttl;
    if restart {
        drop(ns);
        broker.log().shutdown().expect("shutdown");
        drop(broker);
        broker = open(folder.path(), commit);
        ns = broker.default_namespace();
    }
    let shutdown = CancellationToken::new();
    let housekeeping = tokio::spawn(broker.clone().housekeep(shutdown.clone()));
    let (q, dead) = (ns.queue("q").expect("queue"), ns.queue("dead").expect("queue"));
    let (mut start, mut worst) = (Instant::now(), 0);
    if is_ttl {
        tokio::time::sleep_until(expires.into()).await;
        start = expires;
    } else {
        publish(&ns, messages, || worst = worst.max(q.depth().ready)).await;
    }
    let left = if is_ttl { 0 } else { BOUND };
    let expected = if dead_letters { messages } else { 0 };
    let end = start + Duration::from_secs(120);
    while (q.depth().ready > left || dead.depth().ready < expected) && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let ready = q.depth().ready;
    let dropped = (messages + left).saturating_sub(ready);
    println!(
        "{limit:?} {commit:?} dead_letters={dead_letters} restart={restart}: {dropped} dropped in {seconds:.3} s, \
         {:.0}/s; depth after commits at most {worst}, at the end {ready}",
        dropped as f64 / seconds,
    );
    shutdown.cancel();
    housekeeping.await.expect("housekeeping ends");
    broker.log().shutdown().expect("shutdown");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let messages = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    for limit in [Limit::Ttl, Limit::Length, Limit::Bytes] {
        for commit in [CommitPolicy::Os, CommitPolicy::Always] {
            for (dead_letters, restart) in [(false, false), (false, true), (true, false), (true, true)] {
                measure(messages, Variant { limit, commit, dead_letters, restart }).await;
            }
        }
    }
}
