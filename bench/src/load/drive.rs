//! The loop that plays a run: warm-up, window, end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll;

use super::{Actor, Link, Stage};
use crate::perf::Recorder;
use crate::usage::{self, Usage};

/// Output that may wait on a connection before its actor is asked for more.
const OUTPUT_LOW_BYTES: usize = 64 * 1024;
/// A window without progress for this long: what is under way is taken as lost.
const STALL: Duration = Duration::from_millis(1500);
/// Who has not done by then what comes before the window never will.
const WARMUP_MAX: Duration = Duration::from_secs(90);
/// Time for what is under way when the window of an open loop ends; what has not come by then is lost.
const DRAIN_MAX: Duration = Duration::from_secs(5);
const EVENTS: usize = 256;
/// Reads of a connection before it is the next one's turn.
const READS_A_TURN: usize = 8;
/// What tells that no more comes.
const ENDED: epoll::EventFlags =
    epoll::EventFlags::HUP.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ERR);

/// How long a run takes, and of which processes the use is counted.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) warmup: Duration,
    /// The warm-up also lasts until so many messages are done.
    pub(crate) done_before: u64,
    pub(crate) window: Duration,
    /// Latency is measured: never sleep, an open loop must not be late itself; and wait for what is under way
    /// at the end, for that is what took longest.
    pub(crate) spin: bool,
    pub(crate) pids: Vec<u32>,
    /// Sample the processes in the window, into this file.
    pub(crate) record: Option<PathBuf>,
}

/// What the window held.
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) used: Usage,
    pub(crate) rss_bytes: u64,
    /// What the load generator itself used.
    pub(crate) load: Usage,
}

struct Seat {
    link: Link,
    actor: Box<dyn Actor>,
    readable: bool,
    writable: bool,
    /// The other end has no more to say: what is left is read to its end.
    ending: bool,
}

impl Seat {
    /// One turn: read, answer, send, write. True if anything moved.
    fn turn(&mut self, stage: &mut Stage) -> Result<bool> {
        let mut moved = false;
        for _ in 0..READS_A_TURN {
            if !self.readable {
                break;
            }
            match self.link.fill()? {
                None => self.readable = false,
                Some(0) => bail!("the broker closed a connection"),
                Some(_) => {
                    moved = true;
                    // A read that was not filled left nothing: no other is needed to find that out.
                    self.readable = !self.link.drained || self.ending;
                    let have = self.link.input.get(self.link.start..self.link.end).unwrap_or_default();
                    let taken = self.actor.received(have, &mut self.link.output, stage)?;
                    self.link.start += taken;
                }
            }
        }
        if self.link.output.len() - self.link.written < OUTPUT_LOW_BYTES {
            self.actor.send(&mut self.link.output, stage);
        }
        if self.writable && !self.link.output.is_empty() {
            moved = true;
            self.writable = self.link.flush()?;
        }
        Ok(moved)
    }
}

/// Plays the run to the end of its window.
pub(crate) fn drive(seats: Vec<(Link, Box<dyn Actor>)>, stage: &mut Stage, plan: &Plan) -> Result<Outcome> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut seats: Vec<Seat> = seats
        .into_iter()
        .map(|(link, actor)| Seat { link, actor, readable: true, writable: true, ending: false })
        .collect();
    for (index, seat) in seats.iter().enumerate() {
        seat.link.stream.set_nonblocking(true)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET | ENDED;
        epoll::add(&poll, &seat.link.stream, epoll::EventData::new_u64(index as u64), flags)?;
    }
    let mut events = Vec::with_capacity(EVENTS);
    let began = Instant::now();
    let (mut last_done, mut last_progress) = (0, began);
    let mut start: Option<(Instant, u64, Usage, Usage)> = None;
    let mut recorder = None;
    // What the window held, and when it ended.
    let mut drained: Option<(Outcome, Instant)> = None;
    let own = [std::process::id()];
    let mut turn = 0_u32;
    loop {
        let mut moved = false;
        stage.clock();
        for seat in &mut seats {
            moved |= seat.turn(stage)?;
        }
        events.clear();
        let timeout =
            rustix::event::Timespec { tv_sec: 0, tv_nsec: if moved || plan.spin { 0 } else { 20_000_000 } };
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("epoll"),
        }
        for event in events.drain(..) {
            let (flags, data) = (event.flags, event.data);
            let Some(seat) = seats.get_mut(data.u64() as usize) else { continue };
            seat.ending |= flags.intersects(ENDED);
            seat.readable |= flags.contains(epoll::EventFlags::IN) || seat.ending;
            seat.writable |= flags.contains(epoll::EventFlags::OUT);
        }
        turn = turn.wrapping_add(1);
        if moved && !turn.is_multiple_of(64) && !plan.spin {
            continue;
        }
        let now = Instant::now();
        if stage.done != last_done {
            (last_done, last_progress) = (stage.done, now);
        } else if now - last_progress > STALL && stage.window != u64::MAX {
            stage.lost = (stage.sent * stage.fan).saturating_sub(stage.done);
            last_progress = now;
        }
        if let Some((outcome, ended)) = drained.take() {
            let missing = (stage.sent * stage.fan).saturating_sub(stage.done);
            if missing == 0 || now - ended >= DRAIN_MAX {
                stage.lost = missing;
                return Ok(outcome);
            }
            drained = Some((outcome, ended));
            continue;
        }
        match start {
            None if now - began >= plan.warmup && stage.done >= plan.done_before => {
                if let Some(file) = &plan.record {
                    recorder = Some(Recorder::begin(&plan.pids, file)?);
                }
                if plan.spin {
                    stage.record_from_now();
                }
                start = Some((now, stage.done, usage::of(&plan.pids), usage::of(&own)));
            }
            None => ensure!(
                now - began < WARMUP_MAX + plan.warmup,
                "{} of {} messages before the window came within {} s",
                stage.done,
                plan.done_before,
                (now - began).as_secs()
            ),
            Some((at, done, used, load)) if now - at >= plan.window => {
                let (seconds, messages) = ((now - at).as_secs_f64(), stage.done - done);
                let after = usage::of(&plan.pids);
                let load = usage::of(&own) - load;
                drop(recorder.take());
                let (used, rss_bytes) = (after - used, after.rss_bytes);
                let outcome = Outcome { seconds, messages, used, rss_bytes, load };
                if !plan.spin {
                    return Ok(outcome);
                }
                stage.sending = false;
                drained = Some((outcome, now));
            }
            _ => {}
        }
    }
}
