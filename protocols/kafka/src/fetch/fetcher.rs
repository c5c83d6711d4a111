//! The fetches of one connection.
//!
//! One fetch runs at a time; further ones wait in order (clients do not send them). A fetch that finds too little
//! listens to its streams and continues where it stopped, until there is enough, a partition fails, or its time is up.
//!
//! While a client that reads sequentially from disk is sent one response, the records of the next are read ahead.
//! Read-ahead has a memory limit of its own; where there is no memory for it, the next fetch reads from disk itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use inver_broker::{AppliedQuotas, Mailbox, QuotaKind};
use inver_storage::Read;
use tokio::time::Instant;

use super::ahead::Ahead;
use super::cold::{COLD, ColdReads, ColdResult, Purpose};
use super::message::{FetchRequest, FetchResponse};
use super::plan::FetchPlan;
use super::response::write;
use super::running::Running;
use super::session::{FetchSession, NO_SESSION, negotiate};
use crate::access::Access;
use crate::budget::charged;
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::{Frame, FrameWriter};
use crate::codec::header::ResponseHeader;
use crate::map::partition::{READ_COMMITTED, partition_index, read_error};
use crate::metrics::record_count;
use crate::node::Node;
use crate::response::{encode, throttle_ms};
use crate::traced::{self, TracedClient};

/// Pause before a fetch that found no memory tries again.
const NO_MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// The fetches of one connection.
pub(crate) struct Fetcher {
    node: Arc<Node>,
    access: Access,
    mailbox: Arc<Mailbox>,
    plan: FetchPlan,
    session: Option<FetchSession>,
    running: Option<Running>,
    waiting: VecDeque<Submitted>,
    /// Bytes of the requests that wait, as they were received and as they were parsed.
    waiting_bytes: usize,
    /// Number of the last fetch submitted.
    number: u64,
    pub(super) cold: ColdReads,
    /// When to try again, after there was no memory.
    retry_at: Option<Instant>,
    /// The quotas that concern the client at present.
    quotas: Option<Arc<AppliedQuotas>>,
    /// The name that the client gives itself, for its spans.
    client_id: Arc<str>,
}

/// A fetch that has not started.
struct Submitted {
    number: u64,
    header: ResponseHeader,
    request: FetchRequest,
    bytes: usize,
}

impl Fetcher {
    pub(crate) fn new(node: Arc<Node>, access: Access, mailbox: Arc<Mailbox>) -> Fetcher {
        Fetcher {
            node,
            access,
            mailbox,
            plan: FetchPlan::default(),
            session: None,
            running: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            number: 0,
            cold: ColdReads::default(),
            retry_at: None,
            quotas: None,
            client_id: "".into(),
        }
    }

    /// The node.
    pub(crate) fn node(&self) -> Arc<Node> {
        self.node.clone()
    }

    /// Sets the quotas that concern the client from now on.
    pub(crate) fn limit(&mut self, quotas: Option<Arc<AppliedQuotas>>) {
        self.quotas = quotas;
    }

    /// Sets the name that the client gives itself.
    pub(crate) fn trace_as(&mut self, client_id: &str) {
        if *self.client_id != *client_id {
            self.client_id = client_id.into();
        }
    }

    /// Adds a fetch that was received in so many bytes and returns its number. [`Fetcher::poll`] runs it.
    pub(crate) fn submit(&mut self, header: ResponseHeader, request: FetchRequest, received: usize) -> u64 {
        self.number += 1;
        let bytes = received + request.parsed_bytes();
        self.waiting_bytes += bytes;
        self.waiting.push_back(Submitted { number: self.number, header, request, bytes });
        self.number
    }

    /// The next response, with the number of its fetch, if one is complete.
    pub(crate) fn poll(&mut self, arena: &mut BytesMut, now: Instant) -> Option<(u64, Frame)> {
        if self.running.is_none() {
            let next = self.waiting.pop_front()?;
            self.waiting_bytes -= next.bytes;
            if let Err(error_code) = self.start(&next, now) {
                let response = FetchResponse { error_code, ..FetchResponse::default() };
                return Some((next.number, encode(arena, next.header, &response)));
            }
        }
        self.finish(arena, now)
    }

    /// Bytes of the fetches that wait for others.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes of the fetches that wait, and of the partitions of the one that runs.
    pub(crate) fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.plan.bytes()
    }

    /// When to call [`Fetcher::wake`] even if no token arrives.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // While a read from disk is in progress, its token wakes the connection.
        let running = self.running.as_ref().filter(|running| running.cold_reads == 0)?;
        Some(self.retry_at.map_or(running.deadline, |retry_at| retry_at.min(running.deadline)))
    }

    /// Continues after a wake-up: streams have more, reads from disk are done, or it is time to try again.
    pub(crate) fn wake(&mut self, tokens: &[u64], now: Instant) {
        let cold = tokens.contains(&COLD);
        if cold {
            self.take_cold();
        }
        let Some(running) = &mut self.running else { return };
        // What the client may read no longer is not sent, even if it asked before.
        running.failed |= self.plan.recheck(&self.access);
        if cold || self.retry_at.is_some_and(|at| at <= now) {
            // Slots that had to wait for the disk or for memory.
            self.read_all(now);
        }
        for token in tokens.iter().filter(|token| **token < COLD) {
            self.read(*token as usize, now);
        }
    }

    /// Releases memory that is not in use: read-ahead included.
    pub(crate) fn tidy(&mut self) {
        self.plan.drop_ahead();
        self.waiting.shrink_to_fit();
    }

    fn start(&mut self, fetch: &Submitted, now: Instant) -> Result<(), ErrorCode> {
        let (request, version) = (&fetch.request, fetch.header.version.number);
        if !matches!(request.isolation_level, 0 | 1) {
            return Err(ErrorCode::UNKNOWN_SERVER_ERROR);
        }
        let negotiated = negotiate(&mut self.session, version, request)?;
        match negotiated.incremental {
            true => self.plan.update(version, request),
            false => self.plan.replace(version, &request.topics),
        }
        let limits = &self.node.config.limits;
        if self.plan.len() > limits.fetch_partitions_max {
            self.session = None;
            self.plan = FetchPlan::default();
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let bytes = |count: i32| usize::try_from(count).unwrap_or(0);
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        // A response takes a second of the quota, so that no client waits for long after it.
        let of_quota = self.quotas.as_ref().and_then(|quotas| quotas.per_second(QuotaKind::BytesOut));
        let of_quota = of_quota.map_or(usize::MAX, |bytes| bytes as usize);
        let bytes_max = bytes(request.max_bytes).min(limits.fetch_bytes_max).min(of_quota);
        self.plan.begin(&self.access, request.isolation_level == READ_COMMITTED);
        if request.replica_id >= 0 {
            // There are no other nodes that could be replicas.
            self.plan.fail(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        self.running = Some(Running {
            number: fetch.number,
            header: fetch.header,
            deadline: now + wait.min(limits.fetch_wait_max),
            bytes_min: bytes(request.min_bytes).min(bytes_max),
            bytes_max,
            bytes: 0,
            granted: 0,
            cold_reads: 0,
            failed: self.plan.len() == 0 || self.plan.slots().any(|slot| !slot.error.is_none()),
            session_id: negotiated.session_id,
            incremental: negotiated.incremental,
        });
        self.read_all(now);
        if !self.is_done(now) {
            self.plan.listen(&self.mailbox);
            // Records committed before the streams were listened to post no token.
            self.read_all(now);
        }
        Ok(())
    }

    fn is_done(&self, now: Instant) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_done(now))
    }

    fn read_all(&mut self, now: Instant) {
        self.retry_at = None;
        for at in 0..self.plan.order().len() {
            if let Some(place) = self.plan.order().get(at).copied() {
                self.read(place, now);
            }
        }
    }

    /// Reads a slot, as far as there is room.
    fn read(&mut self, place: usize, now: Instant) {
        let (Some(running), Some(slot)) = (&mut self.running, self.plan.slot(place)) else { return };
        let taken = running.bytes + running.granted;
        let room = running.bytes_max.saturating_sub(taken);
        // The first batch is sent whatever its size, or a client with a small limit would never proceed.
        let first = taken == 0;
        if !slot.has_more() || (!first && (room == 0 || slot.room() == 0)) {
            return;
        }
        let Some(partition) = slot.partition().cloned() else { return };
        let room = room.min(slot.room());
        match std::mem::take(&mut slot.ahead) {
            Ahead::Ready { mut batches, .. } => {
                running.take_cold(slot, &mut batches, room, first);
                slot.ahead = Ahead::rest(slot.next, batches);
                return;
            }
            Ahead::Reading { number, from } => {
                slot.ahead = Ahead::Reading { number, from };
                running.await_read(slot, room);
                return;
            }
            Ahead::Nothing => {}
        }
        match partition.stream().read(slot.next, room) {
            Ok(Read::Ready(mut batches)) => running.bytes += slot.take(&mut batches, room, first),
            Ok(Read::Empty) => {}
            Ok(Read::Cold(cold)) if running.cold_reads < self.node.config.limits.cold_reads_max => {
                let Some(share) = self.node.cold_reads.try_take(room) else {
                    self.retry_at = Some(now + NO_MEMORY_PAUSE);
                    return;
                };
                running.await_read(slot, room);
                self.cold.start(&self.mailbox, Purpose::Fetch(running.number), place, cold, share);
            }
            Ok(Read::Cold(_)) => {}
            Err(error) => {
                slot.error = read_error(&error);
                running.failed = true;
            }
        }
    }

    /// Takes the results of reads from disk.
    fn take_cold(&mut self) {
        for read in self.cold.take_results() {
            match read.purpose {
                Purpose::Fetch(number) => {
                    if self.running.as_ref().is_some_and(|running| running.number == number) {
                        self.add_read(read);
                    }
                }
                Purpose::Ahead(number) => {
                    self.cold.aheads -= 1;
                    self.add_read_ahead(number, read);
                }
            }
        }
    }

    /// Keeps batches read ahead, or gives them to the fetch that has come to wait for them.
    fn add_read_ahead(&mut self, number: u64, read: ColdResult) {
        // The client may read elsewhere by now.
        let slot = self.plan.slot(read.place).filter(|slot| slot.is_reading_ahead(number));
        let Some(slot) = slot else { return };
        if slot.granted.is_some() {
            slot.ahead = Ahead::Nothing;
            self.add_read(read);
        } else {
            // If the read failed, the next fetch repeats it and reports the error.
            slot.ahead = Ahead::rest(slot.next, read.into_batches().unwrap_or_default());
        }
    }

    /// Gives batches read from disk to the fetch that waits for them. Those read ahead that do not fit are kept.
    fn add_read(&mut self, read: ColdResult) {
        let Some(running) = &mut self.running else { return };
        running.cold_reads -= 1;
        let Some(slot) = self.plan.slot(read.place) else { return };
        let room = slot.granted.take().unwrap_or(0);
        running.granted = running.granted.saturating_sub(room);
        let first = running.bytes + running.granted == 0;
        let is_ahead = matches!(read.purpose, Purpose::Ahead(_));
        match read.into_batches() {
            // The client may not read the partition any more.
            Ok(_) if !slot.error.is_none() => {}
            Ok(batches) if batches.is_empty() => slot.exhausted = true,
            Ok(mut batches) => {
                running.take_cold(slot, &mut batches, room, first);
                if is_ahead {
                    slot.ahead = Ahead::rest(slot.next, batches);
                }
            }
            Err(error) => {
                slot.error = read_error(&error);
                running.failed = true;
            }
        }
    }

    /// Completes the fetch under way if it is done and there is memory for its response.
    fn finish(&mut self, arena: &mut BytesMut, now: Instant) -> Option<(u64, Frame)> {
        if !self.is_done(now) {
            return None;
        }
        let found_bytes = self.running.as_ref().map_or(0, |running| running.bytes);
        let Some(share) = self.node.fetched.try_take(found_bytes) else {
            self.put_back(now);
            return None;
        };
        let running = self.running.take()?;
        self.node.metrics.fetched_bytes.increment(running.bytes as u64);
        let throttle_ms = self.take_sent(&running, now);
        if self.access.namespace.traces().tracer().is_some() {
            self.trace();
        }
        let frame = {
            let mut writer = FrameWriter::new(arena, running.header);
            write(&mut writer, &running, &self.plan, throttle_ms);
            writer.finish().wrapped(|bytes| charged(bytes, &share))
        };
        self.read_ahead(running.bytes_max);
        self.plan.end(running.session_id != NO_SESSION);
        Some((running.number, frame))
    }

    /// Sends the spans of sampled records that the response has.
    #[cold]
    fn trace(&self) {
        let Some(tracer) = self.access.namespace.traces().tracer() else { return };
        let client = TracedClient { client_id: self.client_id.clone(), namespace: &self.access.namespace };
        for slot in self.plan.slots().filter(|slot| !slot.found.is_empty()) {
            let Some((topic, index)) = slot.topic.find(&self.access).zip(partition_index(slot.index)) else {
                continue;
            };
            let from = u64::try_from(slot.fetch_offset).unwrap_or(0);
            for batch in &slot.found {
                traced::fetched(tracer, &topic, index, batch, from, &client);
            }
        }
    }

    /// Takes what a response uses of the client's quotas. Returns for how long the client's next requests wait, milliseconds.
    fn take_sent(&self, running: &Running, now: Instant) -> i32 {
        let Some(quotas) = &self.quotas else { return 0 };
        let batches = self.plan.slots().flat_map(|slot| &slot.found);
        let records: u64 = batches.map(|batch| u64::from(record_count(&batch.bytes))).sum();
        quotas.take(QuotaKind::BytesOut, running.bytes as f64, now);
        quotas.take(QuotaKind::MessagesOut, records as f64, now);
        throttle_ms(quotas.delay_out(now))
    }

    /// Drops what was found, to be read again after a pause: there is no memory for the response.
    fn put_back(&mut self, now: Instant) {
        self.plan.restart();
        if let Some(running) = &mut self.running {
            running.bytes = 0;
        }
        self.retry_at = Some(now + NO_MEMORY_PAUSE);
    }

    /// Starts to read what the next fetch will request, of partitions that the client reads sequentially from disk.
    fn read_ahead(&mut self, bytes_max: usize) {
        let limits = &self.node.config.limits;
        if limits.read_ahead_bytes_max == 0 {
            return;
        }
        for at in 0..self.plan.order().len() {
            let Some(place) = self.plan.order().get(at).copied() else { return };
            let Some(slot) = self.plan.slot(place).filter(|slot| slot.wants_ahead()) else { continue };
            if self.cold.aheads >= limits.cold_reads_max {
                return;
            }
            let Some(partition) = slot.partition() else { continue };
            let room = slot.bytes_max().min(bytes_max).min(limits.read_ahead_bytes_max);
            let Ok(Read::Cold(cold)) = partition.stream().read(slot.next, room) else { continue };
            let Some(share) = self.node.ahead_reads.try_take(room) else { return };
            let number = self.cold.next_ahead();
            slot.ahead = Ahead::Reading { number, from: slot.next };
            self.cold.start(&self.mailbox, Purpose::Ahead(number), place, cold, share);
        }
    }
}
