//! Fetch: records out, as they are stored.
//!
//! One fetch of a connection runs at a time; further ones wait in line (clients do not send them). A fetch that finds
//! too little listens to its streams and reads on from where it stopped when they have more, until there is enough,
//! something went wrong, or its time is up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inver_broker::Mailbox;
use inver_storage::Read;

use super::fetch_answer::write;
use super::fetch_cold::{Ahead, COLD, ColdReads, Reason};
use super::fetch_plan::FetchPlan;
use super::{Call, Session};
use crate::budget::charged;
use crate::codec::api::fetch::{FetchRequest, FetchResponse};
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::FrameWriter;
use crate::codec::header::RequestHeader;
use crate::error::ConnectionError;
use crate::node::Node;

/// Epochs of a fetch session (KIP-227).
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// Tells clients that there is no session.
const NO_SESSION: i32 = 0;

/// Pause before a read from the disk is tried again for which there was no memory.
const NO_MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// What has to do with fetches on one connection.
pub(super) struct Fetcher {
    mailbox: Arc<Mailbox>,
    pub(super) plan: FetchPlan,
    session: Option<FetchSession>,
    pub(super) running: Option<Running>,
    waiting: VecDeque<(u64, Call, FetchRequest)>,
    number: u64,
    pub(super) cold: ColdReads,
    /// There was no memory for a read: when to try again.
    retry_at: Option<Instant>,
}

/// A session: the plan is kept, requests tell only what changes.
struct FetchSession {
    id: i32,
    epoch: i32,
    by_id: bool,
}

/// The fetch that is under way.
pub(super) struct Running {
    pub(super) number: u64,
    pub(super) header: RequestHeader,
    deadline: Instant,
    pub(super) bytes_min: usize,
    bytes_max: usize,
    pub(super) bytes: usize,
    /// Promised to reads from the disk.
    pub(super) granted: usize,
    pub(super) cold_reads: usize,
    pub(super) failed: bool,
    pub(super) session_id: i32,
    pub(super) incremental: bool,
}

impl Fetcher {
    pub(super) fn new(mailbox: Arc<Mailbox>, node: &Node) -> Fetcher {
        Fetcher {
            plan: FetchPlan::default(),
            session: None,
            running: None,
            waiting: VecDeque::new(),
            number: 0,
            cold: ColdReads::new(mailbox.clone(), node),
            mailbox,
            retry_at: None,
        }
    }

    /// When the fetch that is under way has to be answered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // While the disk is read there is nothing to do but to wait for it.
        let running = self.running.as_ref().filter(|running| running.cold_reads == 0)?;
        Some(self.retry_at.map_or(running.deadline, |retry_at| retry_at.min(running.deadline)))
    }

    /// Reads what a slot has, while there is room for it.
    fn read(&mut self, place: usize, now: Instant) {
        let (Some(running), Some(slot)) = (&mut self.running, self.plan.slot(place)) else { return };
        let taken = running.bytes + running.granted;
        let room = running.bytes_max.saturating_sub(taken);
        // The very first batch is given whatever its size, or a client with little room would never get on.
        let first = taken == 0;
        if !slot.has_more() || (!first && (room == 0 || slot.wants() == 0)) {
            return;
        }
        let Some(partition) = slot.partition().cloned() else { return };
        let room = room.min(slot.wants());
        match std::mem::take(&mut slot.ahead) {
            Ahead::Ready { mut batches, .. } => {
                running.took_cold(slot, &mut batches, room, first);
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
            Ok(Read::Cold(cold)) if running.cold_reads < self.cold.reads_max => {
                let Some(share) = self.cold.memory.try_take(room) else {
                    self.retry_at = Some(now + NO_MEMORY_PAUSE);
                    return;
                };
                running.await_read(slot, room);
                self.cold.start(Reason::Fetch(running.number), place, cold, share);
            }
            Ok(Read::Cold(_)) => {}
            Err(error) => {
                slot.error = super::offsets::read_error(&error);
                running.failed = true;
            }
        }
    }

    fn read_all(&mut self, now: Instant) {
        self.retry_at = None;
        for at in 0..self.plan.order().len() {
            if let Some(place) = self.plan.order().get(at).copied() {
                self.read(place, now);
            }
        }
    }

    /// There is no room for what was found: it is let go, to be read again a little later.
    fn put_back(&mut self, now: Instant) {
        self.plan.restart();
        if let Some(running) = &mut self.running {
            running.bytes = 0;
        }
        self.retry_at = Some(now + NO_MEMORY_PAUSE);
    }

    fn is_done(&self, now: Instant) -> bool {
        self.running.as_ref().is_some_and(|running| {
            let enough = running.bytes >= running.bytes_min || running.bytes >= running.bytes_max;
            running.cold_reads == 0 && (enough || running.failed || now >= running.deadline)
        })
    }
}

impl Session {
    pub(super) fn fetch(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: FetchRequest = call.read()?;
        self.fetcher.number += 1;
        let number = self.fetcher.number;
        self.pipeline.push_fetch(number);
        match self.fetcher.running {
            Some(_) => self.fetcher.waiting.push_back((number, call, request)),
            None => self.start_fetch(number, call, &request),
        }
        Ok(())
    }

    fn start_fetch(&mut self, number: u64, call: Call, request: &FetchRequest) {
        let (session_id, incremental) = match self.plan_fetch(call.version(), request) {
            Ok(planned) => planned,
            Err(code) => return self.refuse_fetch(number, &call.header, code),
        };
        if self.fetcher.plan.len() > self.node.config.limits.fetch_partitions_max {
            self.end_session();
            return self.refuse_fetch(number, &call.header, ErrorCode::INVALID_REQUEST);
        }
        let limits = &self.node.config.limits;
        let bytes = |count: i32| usize::try_from(count).unwrap_or(0);
        let wait =
            Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(limits.fetch_wait_max);
        let bytes_max = bytes(request.max_bytes).min(limits.fetch_bytes_max);
        let (fetcher, now) = (&mut self.fetcher, call.now);
        fetcher.plan.begin(&self.node.namespace);
        fetcher.running = Some(Running {
            number,
            deadline: now + wait,
            bytes_min: bytes(request.min_bytes).min(bytes_max),
            bytes_max,
            bytes: 0,
            granted: 0,
            cold_reads: 0,
            failed: fetcher.plan.len() == 0 || fetcher.plan.slots().any(|slot| !slot.error.is_none()),
            session_id,
            incremental,
            header: call.header,
        });
        fetcher.read_all(now);
        if !fetcher.is_done(now) {
            fetcher.plan.listen(&fetcher.mailbox);
            // What was committed before the listening began would not be told.
            fetcher.read_all(now);
        }
        self.finish_fetch_if_done(now);
    }

    /// Brings the plan up to date; the session to tell of, and whether the answer may leave out what has not changed.
    fn plan_fetch(&mut self, version: i16, request: &FetchRequest) -> Result<(i32, bool), ErrorCode> {
        let by_id = version >= 13;
        let (id, epoch) =
            if version < 7 { (NO_SESSION, FINAL_EPOCH) } else { (request.session_id, request.session_epoch) };
        if matches!(epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            self.fetcher.session = None;
            self.fetcher.plan.replace(version, &request.topics);
            if epoch == FINAL_EPOCH {
                return Ok((NO_SESSION, false));
            }
            let id = (uuid::Uuid::new_v4().as_u128() as i32 & i32::MAX).max(1);
            self.fetcher.session = Some(FetchSession { id, epoch: 1, by_id });
            return Ok((id, false));
        }
        let session = self.fetcher.session.as_mut().filter(|session| session.id == id);
        let session = session.ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.epoch = epoch.checked_add(1).unwrap_or(1);
        self.fetcher.plan.update(version, request);
        Ok((id, true))
    }

    fn end_session(&mut self) {
        self.fetcher.session = None;
        self.fetcher.plan = FetchPlan::default();
    }

    /// The answer when nothing was even tried; before version 7 it cannot be told, and never happens.
    fn refuse_fetch(&mut self, number: u64, header: &RequestHeader, error_code: ErrorCode) {
        let frame = self.respond(header, &FetchResponse { error_code, ..FetchResponse::default() });
        self.pipeline.fetched(number, frame);
    }

    /// Streams have more, the disk has answered, or time is up.
    pub(super) fn continue_fetch(&mut self, tokens: &[u64], now: Instant) {
        if tokens.contains(&COLD) {
            self.fetcher.take_cold();
        }
        if self.fetcher.running.is_none() {
            return;
        }
        let short = self.fetcher.retry_at.is_some_and(|at| at <= now);
        if short || tokens.contains(&COLD) {
            // The disk, or memory, is free for those that had to wait for it.
            self.fetcher.read_all(now);
        }
        for token in tokens.iter().filter(|token| **token < COLD) {
            self.fetcher.read(*token as usize, now);
        }
        self.finish_fetch_if_done(now);
    }

    fn finish_fetch_if_done(&mut self, now: Instant) {
        if !self.fetcher.is_done(now) {
            return;
        }
        let found_bytes = self.fetcher.running.as_ref().map_or(0, |running| running.bytes);
        let Some(share) = self.node.fetched.try_take(found_bytes) else {
            return self.fetcher.put_back(now);
        };
        let Some(running) = self.fetcher.running.take() else { return };
        let session = running.session_id != NO_SESSION;
        self.node.metrics.fetched_bytes.increment(running.bytes as u64);
        let frame = {
            let mut writer = FrameWriter::new(&mut self.arena, &running.header);
            write(&mut writer, &running, &self.fetcher.plan);
            writer.finish().dressed(|bytes| charged(bytes, &share))
        };
        self.pipeline.fetched(running.number, frame);
        self.fetcher.read_ahead(running.bytes_max);
        self.fetcher.plan.end(session);
        if let Some((number, mut call, request)) = self.fetcher.waiting.pop_front() {
            call.now = now;
            self.start_fetch(number, call, &request);
        }
    }
}
