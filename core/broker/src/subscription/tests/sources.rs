//! Sources: what they skip without reading.

use std::time::Duration;

use inver_storage::batch::BatchBuilder;
use inver_storage::{CommitPolicy, Compression, Offset, Read};

use super::fixture::{Fixture, batch, until};
use crate::Mailbox;
use crate::spec::{Mode, QueueLimits};
use crate::subscription::source::Offer;
use crate::subscription::{ConsumerSpec, MemoryBounds, Subscription, WhenFull};

/// Messages in memory, in the batch that is being taken, and in the spilled part.
#[tokio::test]
async fn a_queue_in_memory_skips_whole_batches_and_parts_of_them() {
    for skipped in [1, 5, 10, 12, 25, 30, 49, 50] {
        let fixture = Fixture::cold(CommitPolicy::Os);
        let bounds = MemoryBounds { messages_max: 30, bytes_max: u64::MAX, when_full: WhenFull::Spill };
        let subscription = Subscription::in_memory(&fixture.context, "q", Mode::Shared, bounds);
        (0..5).for_each(|_| subscription.push(&batch(1, 10, 8), None));
        let mut consumer = subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
        let mut got = Vec::new();
        consumer.pull(3, usize::MAX, &mut got);
        assert_eq!(got.len(), 3);
        let stream =
            subscription.locked(|state| state.memory().and_then(|m| m.spilled_stream().cloned())).unwrap();
        until("the spilled part is readable", || stream.high_watermark() == stream.next_offset()).await;
        let skipped = skipped.min(47);
        assert_eq!(subscription.locked(|state| state.sources[0].skip(skipped).messages), skipped);
        assert_eq!(subscription.counts().ready, 47 - skipped);
        got.clear();
        while consumer.pull(100, usize::MAX, &mut got).more {}
        assert!(got.iter().map(|d| d.id.offset).eq(3 + skipped..50), "{skipped}");
    }
}

#[tokio::test]
async fn a_skipped_part_of_a_load_under_way_is_not_delivered() {
    let mut fixture = Fixture::cold(CommitPolicy::Os);
    let ids = fixture.create();
    let queue = fixture.queue(ids, QueueLimits::default());
    fixture.append(&queue, 2_000, 10, 100);
    drop(queue);
    fixture = fixture.restart();
    let queue = fixture.queue(ids, QueueLimits::default());
    let mailbox = Mailbox::new();
    let mut consumer = queue.subscription.attach(ConsumerSpec::new(mailbox.clone(), 1)).unwrap();
    let mut got = Vec::new();
    assert!(!consumer.pull(100, usize::MAX, &mut got).more, "it is loaded");
    assert_eq!(queue.subscription.locked(|state| state.sources[0].skip(19_005).messages), 19_005);
    while got.len() < 995 {
        if !consumer.pull(995 - got.len(), usize::MAX, &mut got).more {
            tokio::time::timeout(Duration::from_secs(60), mailbox.wait()).await.expect("it is woken");
            mailbox.drain(&mut Vec::new());
        }
    }
    assert!(got.iter().map(|d| d.id.offset).eq(19_005..20_000));
}

/// What was read ahead was delivered after its buffer had been released, and the messages in between were lost.
#[tokio::test]
async fn a_released_buffer_is_read_again_before_what_was_read_ahead_of_it() {
    let mut fixture = Fixture::cold(CommitPolicy::Os);
    let ids = fixture.create();
    let queue = fixture.queue(ids, QueueLimits::default());
    fixture.append(&queue, 2_000, 1, 100);
    drop(queue);
    fixture = fixture.restart();
    let queue = fixture.queue(ids, QueueLimits::default());
    let mut taken = Vec::new();
    for releases in [false, true, false, true] {
        queue.subscription.locked(|state| {
            let source = &mut state.sources[0];
            let mut left = usize::MAX;
            while left > 0 {
                match source.take(4096) {
                    Offer::Taken(message) => {
                        taken.push(message.offset);
                        left -= 1;
                    }
                    Offer::Load(read) => {
                        assert!(source.loaded(false, read.run().unwrap()));
                        left = 3;
                    }
                    Offer::Empty | Offer::Gone => panic!("all can be read"),
                }
            }
            let ahead = source.read_ahead(8192).expect("a read ahead");
            if releases {
                source.release_buffered();
            }
            assert!(source.loaded(false, ahead.run().unwrap()));
        });
    }
    assert!(taken.len() > 50 && taken.iter().copied().eq(0..taken.len() as u64), "{taken:?}");
}

/// The load for a requeued message counted as the answer to a later read of the same message, which was not in what had
/// been kept of it: the message was taken for compacted, and acknowledged.
#[tokio::test]
async fn a_message_that_is_requeued_twice_is_delivered_again() {
    let mut fixture = Fixture::cold(CommitPolicy::Os);
    let ids = fixture.create();
    let queue = fixture.queue(ids, QueueLimits::default());
    fixture.append(&queue, 3, 5, 100);
    drop(queue);
    fixture = fixture.restart();
    let queue = fixture.queue(ids, QueueLimits::default());
    let mailbox = Mailbox::new();
    let mut consumer = queue.subscription.attach(ConsumerSpec::new(mailbox.clone(), 1)).unwrap();
    for messages in [15, 2, 15] {
        let mut got = Vec::new();
        until("they are delivered", || {
            consumer.pull(messages - got.len(), usize::MAX, &mut got);
            got.len() == messages
        })
        .await;
        assert!(got.iter().map(|d| d.id.offset).eq(0..messages as u64));
        let ids: Vec<_> = got.iter().map(|d| d.id).collect();
        consumer.requeue(&ids).unwrap();
    }
}

/// What was written was the decompressed batch, which may be larger than the log takes.
#[tokio::test]
async fn a_full_queue_in_memory_spills_a_batch_as_it_was_stored() {
    let fixture = Fixture::new();
    let bounds = MemoryBounds { messages_max: 1, bytes_max: u64::MAX, when_full: WhenFull::Spill };
    let subscription = Subscription::in_memory(&fixture.context, "q", Mode::Shared, bounds);
    let mut builder = BatchBuilder::new(0);
    builder.push(1, None, &[], Some(&[b'x'; 100_000]));
    let (stored, plain) = (builder.finish_as(Compression::Zstd, None), batch(1, 1, 100_000));
    (0..2).for_each(|_| {
        Subscription::push_to_all(std::slice::from_ref(&subscription), &stored, &plain, None);
    });
    let stream =
        subscription.locked(|state| state.memory().and_then(|m| m.spilled_stream().cloned())).unwrap();
    until("the spilled part is readable", || stream.high_watermark() == stream.next_offset()).await;
    let Ok(Read::Ready(spilled)) = stream.read(Offset(0), 1) else { panic!("it is in memory") };
    assert_eq!(spilled[0].bytes.len(), stored.bytes().len());
    let mut consumer = subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    let mut got = Vec::new();
    until("both are delivered", || {
        consumer.pull(2, usize::MAX, &mut got);
        got.len() == 2
    })
    .await;
    assert!(got.iter().all(|d| d.record.value.as_ref().is_some_and(|value| value.len() == 100_000)));
}

/// They stayed until the next pull: a megabyte a queue.
#[test]
fn a_check_or_a_pull_that_ends_early_keeps_no_messages_of_the_index() {
    let fixture = Fixture::new();
    let queue = fixture.queue(fixture.create(), QueueLimits::default());
    queue.subscription.order_by_priority(5);
    let copies = || queue.subscription.locked(|state| state.copies());
    fixture.append(&queue, 1, 10, 100);
    assert_eq!(queue.subscription.depth().ready, 10);
    assert_eq!(copies(), 0);
    fixture.append(&queue, 1, 10, 100);
    let mut consumer = queue.subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    consumer.pull(0, usize::MAX, &mut Vec::new());
    assert_eq!(copies(), 0);
}
