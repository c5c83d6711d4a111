//! The event loop of a run: warm-up, window, drain.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll;

use super::{Client, Link, RunState};
use crate::perf::Recorder;
use crate::usage::{self, Usage};

/// Pending output of a connection below which its client may send more.
const OUTPUT_LOW_BYTES: usize = 64 * 1024;
/// Time without progress after which messages in flight count as lost.
const STALL: Duration = Duration::from_millis(1500);
/// Time limit of the messages before the window.
const WARMUP_MAX: Duration = Duration::from_secs(90);
/// Time limit for messages in flight at the end of an open loop's window; later ones count as lost.
const DRAIN_MAX: Duration = Duration::from_secs(5);
const EVENTS: usize = 256;
/// Reads of one connection in a turn.
const READS_A_TURN: usize = 8;
/// Events of a connection that the peer has closed.
const ENDED: epoll::EventFlags =
    epoll::EventFlags::HUP.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ERR);

/// Durations of a run, and the processes whose usage is measured.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) warmup: Duration,
    /// The warm-up lasts until this many messages are done, at least.
    pub(crate) messages_before: u64,
    pub(crate) window: Duration,
    /// Latency is measured: never sleep, so that the open loop is on time, and wait for the messages in flight at the
    /// end, which took longest.
    pub(crate) spin: bool,
    pub(crate) pids: Vec<u32>,
    /// The file for a `perf` recording of the processes in the window.
    pub(crate) record: Option<PathBuf>,
}

/// Figures of the window.
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) used: Usage,
    pub(crate) rss_bytes: u64,
    /// Usage of the load generator itself.
    pub(crate) load: Usage,
}

struct Connection {
    link: Link,
    client: Box<dyn Client>,
    readable: bool,
    writable: bool,
    /// The peer has closed its side; the rest is read to its end.
    ending: bool,
}

impl Connection {
    /// One turn: read, answer, send, write. True if anything was read or written.
    fn turn(&mut self, state: &mut RunState) -> Result<bool> {
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
                    // A read that did not fill the buffer left nothing to read.
                    self.readable = !self.link.drained || self.ending;
                    let have = self.link.input.get(self.link.start..self.link.end).unwrap_or_default();
                    let taken = self.client.received(have, &mut self.link.output, state)?;
                    self.link.start += taken;
                }
            }
        }
        if self.link.output.len() - self.link.written < OUTPUT_LOW_BYTES {
            self.client.send(&mut self.link.output, state);
        }
        if self.writable && !self.link.output.is_empty() {
            moved = true;
            self.writable = self.link.flush()?;
        }
        Ok(moved)
    }
}

/// Runs the clients to the end of the window.
pub(crate) fn run(
    connections: Vec<(Link, Box<dyn Client>)>,
    state: &mut RunState,
    plan: &Plan,
) -> Result<Outcome> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections: Vec<Connection> = connections
        .into_iter()
        .map(|(link, client)| Connection { link, client, readable: true, writable: true, ending: false })
        .collect();
    for (index, connection) in connections.iter().enumerate() {
        connection.link.stream.set_nonblocking(true)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET | ENDED;
        epoll::add(&poll, &connection.link.stream, epoll::EventData::new_u64(index as u64), flags)?;
    }
    let mut events = Vec::with_capacity(EVENTS);
    let began = Instant::now();
    let (mut last_done, mut last_progress) = (0, began);
    let mut start: Option<(Instant, u64, Usage, Usage)> = None;
    let mut recorder = None;
    // The figures of the window and its end, while messages in flight are awaited.
    let mut drained: Option<(Outcome, Instant)> = None;
    let own = [std::process::id()];
    let mut turn = 0_u32;
    loop {
        let mut moved = false;
        state.clock();
        for connection in &mut connections {
            moved |= connection.turn(state)?;
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
            let Some(connection) = connections.get_mut(data.u64() as usize) else { continue };
            connection.ending |= flags.intersects(ENDED);
            connection.readable |= flags.contains(epoll::EventFlags::IN) || connection.ending;
            connection.writable |= flags.contains(epoll::EventFlags::OUT);
        }
        turn = turn.wrapping_add(1);
        if moved && !turn.is_multiple_of(64) && !plan.spin {
            continue;
        }
        let now = Instant::now();
        if state.done != last_done {
            (last_done, last_progress) = (state.done, now);
        } else if now - last_progress > STALL && state.window != u64::MAX {
            state.lost = (state.sent * state.fan_out).saturating_sub(state.done);
            last_progress = now;
        }
        if let Some((outcome, ended)) = drained.take() {
            let missing = (state.sent * state.fan_out).saturating_sub(state.done);
            if missing == 0 || now - ended >= DRAIN_MAX {
                state.lost = missing;
                return Ok(outcome);
            }
            drained = Some((outcome, ended));
            continue;
        }
        match start {
            None if now - began >= plan.warmup && state.done >= plan.messages_before => {
                if let Some(file) = &plan.record {
                    recorder = Some(Recorder::begin(&plan.pids, file)?);
                }
                if plan.spin {
                    state.record_from_now();
                }
                start = Some((now, state.done, usage::of(&plan.pids), usage::of(&own)));
            }
            None => ensure!(
                now - began < WARMUP_MAX + plan.warmup,
                "{} of {} messages before the window arrived within {} s",
                state.done,
                plan.messages_before,
                (now - began).as_secs()
            ),
            Some((at, done, used, load)) if now - at >= plan.window => {
                let (seconds, messages) = ((now - at).as_secs_f64(), state.done - done);
                let after = usage::of(&plan.pids);
                let load = usage::of(&own) - load;
                drop(recorder.take());
                let (used, rss_bytes) = (after - used, after.rss_bytes);
                let outcome = Outcome { seconds, messages, used, rss_bytes, load };
                if !plan.spin {
                    return Ok(outcome);
                }
                state.sending = false;
                drained = Some((outcome, now));
            }
            _ => {}
        }
    }
}
