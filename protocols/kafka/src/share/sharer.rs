//! All share sessions of a connection, and its share fetches.
//!
//! A request acknowledges at once, in its turn. What it fetches is looked for at once too; if there is nothing, the fetch waits
//! until a consumer of the session is woken, or its time is up. A further share fetch of the connection ends that wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use inver_access::Operation;
use inver_broker::{AppliedQuotas, Completion, Mailbox, QuotaKind};
use tokio::time::Instant;

use super::answer;
use super::message::{AcknowledgementBatch, FetchTopic, ShareFetchRequest};
use super::running::{MemberKey, Running};
use super::session::ShareSession;
use crate::access::Access;
use crate::budget::charged;
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::Frame;
use crate::codec::header::ResponseHeader;
use crate::codec::text::Str;
use crate::codec::wire::{Uuid, Wire};
use crate::node::Node;
use crate::response::{encode, throttle_ms};

/// Epoch of a request that opens a session.
const INITIAL_EPOCH: i32 = 0;

/// Epoch of a request that closes it.
const FINAL_EPOCH: i32 = -1;

/// Mailbox tokens of consumers are above this.
const TOKENS: u64 = 3 << 61;

/// Pause before a response is tried again that found no memory.
const NO_MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// Pause before a fetch is tried again that found only messages that it may not have: of partitions that its member does not
/// want, or of which the group holds as many as it may.
const LEFT_PAUSE: Duration = Duration::from_millis(100);

/// The error of a request as a whole.
pub(crate) type Rejected = (ErrorCode, &'static str);

/// Acknowledgements of a partition.
pub(crate) struct OfPartition<'a> {
    pub(crate) topic: Uuid,
    pub(crate) partition: i32,
    pub(crate) batches: &'a [AcknowledgementBatch],
}

/// A request to acknowledge.
pub(crate) struct Acknowledge<'a> {
    pub(crate) member: MemberKey,
    pub(crate) epoch: i32,
    /// Whether it renews what the member holds.
    pub(crate) renews: bool,
    pub(crate) partitions: Vec<OfPartition<'a>>,
}

/// Acknowledged partitions, each with its error, and when that holds.
pub(crate) type Acknowledged = (Vec<(Uuid, i32, ErrorCode)>, Completion);

/// The share sessions of one connection.
pub(crate) struct Sharer {
    node: Arc<Node>,
    access: Access,
    mailbox: Arc<Mailbox>,
    sessions: HashMap<MemberKey, ShareSession>,
    /// The fetches that are not answered. All but the last are to be answered at once.
    running: VecDeque<Running>,
    /// Number of the last fetch.
    number: u64,
    /// Token of the last consumer.
    token: u64,
    /// When to try again.
    retry_at: Option<Instant>,
    quotas: Option<Arc<AppliedQuotas>>,
}

impl Sharer {
    pub(crate) fn new(node: Arc<Node>, access: Access, mailbox: Arc<Mailbox>) -> Sharer {
        Sharer {
            node,
            access,
            mailbox,
            sessions: HashMap::new(),
            running: VecDeque::new(),
            number: 0,
            token: TOKENS,
            retry_at: None,
            quotas: None,
        }
    }

    /// Sets the quotas that concern the client from now on.
    pub(crate) fn limit(&mut self, quotas: Option<Arc<AppliedQuotas>>) {
        self.quotas = quotas;
    }

    /// Begins a fetch, after what it acknowledges. Returns its number; [`Sharer::poll`] gives the response.
    pub(crate) fn submit(
        &mut self,
        header: ResponseHeader,
        request: &ShareFetchRequest,
        member: MemberKey,
        now: Instant,
    ) -> Result<u64, Rejected> {
        let asks = [request.max_wait_ms, request.min_bytes, request.max_bytes, request.max_records];
        if request.is_renew_ack && asks.iter().any(|asked| *asked > 0) {
            return Err((ErrorCode::INVALID_REQUEST, "A request that renews must not fetch."));
        }
        let partitions = acknowledgements(&request.topics);
        if request.share_session_epoch == INITIAL_EPOCH {
            self.open(&member, !partitions.is_empty())?;
        } else {
            self.continues(&member, request.share_session_epoch)?;
        }
        let is_final = request.share_session_epoch == FINAL_EPOCH;
        let (acknowledged, completion) = self.settle(&member, request.is_renew_ack, partitions, now);
        let limits = &self.node.config.limits;
        let Some(session) = self.sessions.get_mut(&member) else { return Err(not_found()) };
        if is_final {
            self.sessions.remove(&member);
        } else {
            for topic in &request.forgotten_topics_data {
                topic.partitions.iter().for_each(|partition| session.forget(topic.topic_id, *partition));
            }
            let wanted = request.topics.iter().flat_map(|FetchTopic { topic_id, partitions, .. }| {
                partitions.iter().map(|partition| (*topic_id, partition.partition_index))
            });
            for (topic, partition) in wanted {
                session.add(&self.access, topic, partition, &mut self.token);
                if session.partition_count() > limits.fetch_partitions_max {
                    self.sessions.remove(&member);
                    return Err((
                        ErrorCode::INVALID_REQUEST,
                        "There are too many partitions in the session.",
                    ));
                }
            }
        }
        // A response takes a second of the quota, so that no client waits for long after it.
        let of_quota = self.quotas.as_ref().and_then(|quotas| quotas.per_second(QuotaKind::BytesOut));
        let of_quota = of_quota.map_or(usize::MAX, |bytes| (bytes as usize).max(1));
        let asked = |count: i32| usize::try_from(count).unwrap_or(0);
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        self.number += 1;
        self.running.push_back(Running {
            number: self.number,
            header,
            member,
            deadline: now + wait.min(limits.fetch_wait_max),
            records_left: asked(request.max_records),
            bytes_left: asked(request.max_bytes).min(limits.share_fetch_bytes_max).min(of_quota),
            bytes: 0,
            found: Vec::new(),
            is_done: is_final
                || request.is_renew_ack
                || acknowledged.iter().any(|(.., error)| !error.is_none()),
            acknowledged,
            failed: Vec::new(),
            completion,
        });
        self.pull(now);
        Ok(self.number)
    }

    /// Handles a request that only acknowledges.
    pub(crate) fn acknowledge(
        &mut self,
        request: Acknowledge<'_>,
        now: Instant,
    ) -> Result<Acknowledged, Rejected> {
        let Acknowledge { member, epoch, renews, partitions } = request;
        if epoch == INITIAL_EPOCH {
            return Err((ErrorCode::INVALID_SHARE_SESSION_EPOCH, "A session is opened by a share fetch."));
        }
        self.continues(&member, epoch)?;
        let done = self.settle(&member, renews, partitions, now);
        if epoch == FINAL_EPOCH {
            self.sessions.remove(&member);
        }
        Ok(done)
    }

    /// The time for which records are held by members of a group, milliseconds.
    pub(crate) fn lock_timeout_ms(&self, group: &str) -> i32 {
        let settings = self.access.node.coordinator.share_settings(group);
        i32::try_from(settings.lock_duration.as_millis()).unwrap_or(i32::MAX)
    }

    /// Opens the session of a member, in place of one that it has.
    fn open(&mut self, member: &MemberKey, acknowledges: bool) -> Result<(), Rejected> {
        self.sessions.remove(member);
        if acknowledges {
            return Err((ErrorCode::INVALID_REQUEST, "A new session has nothing to acknowledge."));
        }
        let place = self.node.share_sessions.clone().try_acquire_owned();
        let place = place.map_err(|_| {
            (ErrorCode::SHARE_SESSION_LIMIT_REACHED, "The limit of share sessions has been reached.")
        })?;
        let (group, id) = (member.0.detached(), member.1.detached());
        self.sessions.insert((group.clone(), id), ShareSession::new(group, place));
        Ok(())
    }

    /// Checks the epoch of a request that goes on with a session, or closes it.
    fn continues(&mut self, member: &MemberKey, epoch: i32) -> Result<(), Rejected> {
        let session = self.sessions.get_mut(member).ok_or_else(not_found)?;
        if epoch == FINAL_EPOCH {
            return Ok(());
        }
        if session.epoch != epoch {
            return Err((ErrorCode::INVALID_SHARE_SESSION_EPOCH, "The share session epoch is invalid."));
        }
        session.next_epoch();
        Ok(())
    }

    /// Acknowledges what a request names.
    fn settle(
        &mut self,
        member: &MemberKey,
        renews: bool,
        partitions: Vec<OfPartition<'_>>,
        now: Instant,
    ) -> Acknowledged {
        let Some(session) = self.sessions.get_mut(member) else { return (Vec::new(), Completion::Now) };
        let settings = self.access.node.coordinator.share_settings(&member.0);
        let (renews, until) = (renews && settings.renews, now + settings.lock_duration);
        session.end_holds(now);
        let mut completion = Completion::Now;
        let mut acknowledge = |of: OfPartition<'_>| {
            let error = match session.acknowledge(of.topic, of.partition, of.batches, renews, until) {
                Ok(settled) => {
                    completion = completion.and(settled);
                    ErrorCode::NONE
                }
                Err(error) => error,
            };
            (of.topic, of.partition, error)
        };
        let done = partitions.into_iter().map(&mut acknowledge).collect();
        (done, completion)
    }

    /// Acquires records for the fetch that waits.
    fn pull(&mut self, now: Instant) {
        self.retry_at = None;
        let Some(running) = self.running.back_mut().filter(|running| !running.is_done) else { return };
        let Some(session) = self.sessions.get_mut(&running.member) else {
            running.is_done = true;
            return;
        };
        if !self.access.may_group(&running.member.0, Operation::Read) {
            running.is_done = true;
            return;
        }
        let settings = self.access.node.coordinator.share_settings(&running.member.0);
        let after = session.pull(&self.access, &self.mailbox, &settings, running, now);
        if running.is_done {
            return;
        }
        if after.more {
            // In the next turn.
            self.retry_at = Some(now);
        } else if after.left {
            self.retry_at = Some(now + LEFT_PAUSE);
        }
    }

    /// The next response, with the number of its fetch and when it may be sent, if one is complete.
    pub(crate) fn poll(&mut self, arena: &mut BytesMut, now: Instant) -> Option<(u64, Frame, Completion)> {
        let is_last = self.running.len() == 1;
        let running = self.running.front_mut()?;
        running.is_done |= !is_last || now >= running.deadline;
        if !running.is_done {
            return None;
        }
        let Some(share) = self.node.fetched.try_take(running.bytes) else {
            self.retry_at = Some(now + NO_MEMORY_PAUSE);
            return None;
        };
        let mut running = self.running.pop_front()?;
        // What was given to others while the response had to wait is theirs.
        let session = self.sessions.get_mut(&running.member);
        running.found.retain(|(topic, delivery)| {
            session.as_ref().is_some_and(|session| session.holds(*topic, delivery.id))
        });
        let waits = |later: &Running| later.member == running.member && !later.is_done;
        if let Some(session) = session
            && !self.running.iter().any(waits)
        {
            session.let_pass(None);
        }
        let records = running.found.len();
        self.node.metrics.fetched_bytes.increment(running.bytes as u64);
        let lock_timeout_ms = self.lock_timeout_ms(&running.member.0);
        let mut response = answer::response(&mut running, self.node.config.node_id, lock_timeout_ms);
        response.throttle(self.take_sent(running.bytes, records, now));
        let frame = encode(arena, running.header, &response).wrapped(|bytes| charged(bytes, &share));
        Some((running.number, frame, running.completion))
    }

    /// Takes what a response uses of the client's quotas. Returns for how long the client's next requests wait, milliseconds.
    fn take_sent(&self, bytes: usize, records: usize, now: Instant) -> i32 {
        let Some(quotas) = &self.quotas else { return 0 };
        quotas.take(QuotaKind::BytesOut, bytes as f64, now);
        quotas.take(QuotaKind::MessagesOut, records as f64, now);
        throttle_ms(quotas.delay_out(now))
    }

    /// Bytes of its sessions and of what fetches found.
    pub(crate) fn held_bytes(&self) -> usize {
        let found: usize = self.running.iter().map(|running| running.bytes).sum();
        found + self.sessions.values().map(ShareSession::bytes).sum::<usize>()
    }

    /// When to call [`Sharer::wake`] even if no token arrives.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let holds = self.sessions.values().filter_map(ShareSession::next_end).min();
        let fetch = self.running.back().filter(|running| !running.is_done).map(|running| running.deadline);
        [holds, fetch, self.retry_at].into_iter().flatten().min()
    }

    /// Continues after a wake-up: consumers may have messages, holds have ended, or it is time to try again.
    pub(crate) fn wake(&mut self, tokens: &[u64], now: Instant) {
        self.sessions.values_mut().for_each(|session| session.end_holds(now));
        let waits = self.running.back().filter(|running| !running.is_done).map(|running| &running.member);
        for (member, session) in &mut self.sessions {
            if waits != Some(member) {
                session.let_pass(Some(tokens));
            }
        }
        let is_woken = tokens.iter().any(|token| *token > TOKENS && *token <= self.token);
        if is_woken || self.retry_at.is_some_and(|at| at <= now) {
            self.pull(now);
        }
    }
}

/// What a fetch acknowledges.
fn acknowledgements(topics: &[FetchTopic]) -> Vec<OfPartition<'_>> {
    let mut all = Vec::new();
    for topic in topics {
        for partition in topic.partitions.iter().filter(|of| !of.acknowledgement_batches.is_empty()) {
            all.push(OfPartition {
                topic: topic.topic_id,
                partition: partition.partition_index,
                batches: &partition.acknowledgement_batches,
            });
        }
    }
    all
}

/// The group of a request and its member.
///
/// # Errors
/// One of them is missing.
pub(crate) fn member(group_id: Option<&Str>, member_id: Option<&Str>) -> Result<MemberKey, Rejected> {
    let present = |text: Option<&Str>| text.filter(|text| !text.trim().is_empty()).cloned();
    match (present(group_id), present(member_id)) {
        (Some(group), Some(member)) => Ok((group, member)),
        _ => Err((ErrorCode::INVALID_REQUEST, "GroupId and MemberId must be given.")),
    }
}

fn not_found() -> Rejected {
    (ErrorCode::SHARE_SESSION_NOT_FOUND, "The share session was not found.")
}
