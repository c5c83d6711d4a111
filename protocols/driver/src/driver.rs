//! The turn loop of one connection.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use inver_broker::{CLOSE, Connection, EVICT, LiveConnection};
use inver_storage::{NoMemory, Share};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::connections::{Connections, OPENED, SHUTDOWN};
use crate::input::Input;
use crate::link::{Flags, Holding, Kept, Link, TIGHT_BYTES};
use crate::machine::{Close, End, Machine};
use crate::output::Output;
use crate::pool;
use crate::quota::{Room, Throttle};
use crate::timeouts::{SHUTDOWN_DRAIN, SHUTDOWN_LINGER, Timeouts};
use crate::timer::Timer;
use crate::traffic::turn_time::{TURN_TIME, TurnCpu};
use crate::traffic::{Count, count, describe_work};

/// Turns of a connection before other connections of its thread get theirs; fewer, if they take [`TURN_TIME`].
pub const TURNS_MAX: usize = 8;

/// Time from which a connection that has more to do waits until the runtime has polled the sockets of others. The runtime does
/// that after 61 polls of tasks otherwise, which together would be as much longer than each.
const YIELD_FROM: Duration = Duration::from_micros(250);

/// Silence after which a connection frees the memory that it used while it was busy.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// A connection: its machine, its socket, and what is between them.
///
/// [`Serving`](crate::Serving) is the future that runs it to its end.
pub struct Driver<M: Machine> {
    pub(crate) machine: M,
    pub(crate) link: Link<M::Input>,
}

/// What happened since the last turn.
#[derive(Default)]
struct Happened {
    mail: bool,
    /// Input was read, or kept input may be taken now: so many bytes are new.
    input: Option<usize>,
    expired: bool,
    /// The machine has something to do for another reason.
    other: bool,
}

impl Happened {
    fn anything(&self) -> bool {
        self.mail || self.input.is_some() || self.expired || self.other
    }
}

type Turn<M> = Result<bool, End<<M as Machine>::Error>>;

impl<M: Machine> Driver<M> {
    /// A connection of `connections`. Must be called within a runtime.
    pub fn new(connection: Connection, connections: &Arc<Connections>, machine: M) -> Driver<M> {
        connections.watch(&connection.shutdown, machine.log().gate());
        let link = Link::new(connection.io, connections.clone(), machine.mailbox());
        Driver { machine, link }
    }

    /// Goes on with another machine, which takes over the socket with its input and output.
    pub fn continue_with<N: Machine<Input = M::Input>>(mut self, machine: N) -> Driver<N> {
        if !Arc::ptr_eq(self.machine.mailbox(), machine.mailbox()) {
            self.link.move_to(machine.mailbox());
        }
        self.link.flags.set(Flags::BLOCKED, true);
        self.link.flags.set(Flags::MORE, true);
        self.link.timer = None;
        Driver { machine, link: self.link }
    }

    /// The output, to write to before the first turn.
    pub fn output(&mut self) -> &mut Output {
        self.link.output()
    }

    /// Turn after turn until there is nothing to do now. Ready with the reason for the connection's end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End<M::Error>> {
        let mut scratch = pool::take_read();
        let cpu = TurnCpu::started(self.machine.timeouts().slow_turn_cpu);
        let started = Instant::now();
        let mut now = started;
        let polled = self.turns(&mut now, &mut scratch, cx);
        pool::give_read(scratch);
        self.measure(now - started, &cpu);
        self.link.connections.traffic().add_tally();
        match polled {
            Ok(()) => {
                self.account();
                Poll::Pending
            }
            Err(end) => Poll::Ready(end),
        }
    }

    /// Accounts for what is kept for the client.
    fn account(&mut self) {
        let holding = Holding {
            input: self.link.input.kept_bytes() + self.machine.held_bytes(),
            transactions: self.machine.transaction_bytes(),
            output: self.link.own_pending_bytes() + self.machine.encoded_bytes(),
        };
        let machine = &self.machine;
        Kept::update(&mut self.link.kept, holding, machine.log().memory(), || machine.mailbox().clone());
    }

    /// Turns until there is nothing to do or others must get theirs. `now` is then the end of the last one.
    fn turns(
        &mut self,
        now: &mut Instant,
        scratch: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<(), End<M::Error>> {
        let started = *now;
        for _ in 0..TURNS_MAX {
            let turned = self.turn(*now, scratch, cx);
            if let Ok(false) = turned {
                return Ok(());
            }
            *now = Instant::now();
            turned?;
            if *now - started >= TURN_TIME {
                break;
            }
        }
        let now = *now;
        self.link.poll_write(now, cx)?;
        if self.due(now).is_some_and(|due| due <= now) {
            self.expire(now)?;
        }
        if now - started >= YIELD_FROM {
            yield_to_others(cx);
        } else {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Collects what happened and runs a turn for it. False if nothing did; then this task is woken by whatever does.
    fn turn(&mut self, now: Instant, scratch: &mut Vec<u8>, cx: &mut Context<'_>) -> Turn<M> {
        let mut happened = Happened::default();
        let goes_on = self.follow_quotas(now);
        // Writing first makes room.
        let is_written = self.link.poll_write(now, cx)?;
        let is_held = self.link.throttle.as_ref().is_some_and(|throttle| throttle.holds_deliveries());
        happened.other = goes_on || (self.link.flags.has(Flags::MORE) && is_written && !is_held);
        happened.mail = self.machine.mailbox().poll(cx).is_ready();
        self.poll_input(&mut happened, scratch, now, cx)?;
        if let Poll::Ready(worked) = self.machine.poll_work(cx) {
            worked.map_err(End::Protocol)?;
            happened.other = true;
        }
        if let Some(lsn) = self.machine.awaits()
            && self.machine.log().committed() >= lsn
        {
            happened.other = true;
        }
        if !happened.anything() {
            happened.other = self.poll_committed(cx)?;
            happened.expired = self.poll_timer(now, cx);
            if !happened.anything() {
                return Ok(false);
            }
        }
        self.take_up(&happened, scratch, now)?;
        Ok(true)
    }

    /// Records for how long this connection had its thread. Before the thread's counts are added, which tell what it did.
    fn measure(&self, time: Duration, cpu: &TurnCpu) {
        let slow = self.machine.timeouts().slow_turn;
        let work = || (self.machine.place().map(LiveConnection::peer), describe_work());
        self.link.connections.traffic().turns().record(time, cpu, slow, work);
    }

    /// Learns what quotas hold back. True if deliveries were held back and are no longer.
    fn follow_quotas(&mut self, now: Instant) -> bool {
        let place = self.machine.place();
        place.is_some_and(|place| Throttle::follow(place, &mut self.link.throttle, now))
    }

    /// Runs a turn, measured if quotas concern the connection.
    fn take_up(
        &mut self,
        happened: &Happened,
        scratch: &mut Vec<u8>,
        now: Instant,
    ) -> Result<(), End<M::Error>> {
        let is_tight = self.machine.log().memory().is_tight();
        if self.link.throttle.is_none() && !is_tight {
            return self.run_turn(happened, scratch, now);
        }
        let throttle = self.link.throttle.as_ref();
        let measured = throttle.map(|throttle| throttle.measure(self.link.pending_bytes()));
        let mut room = throttle.map_or_else(Room::default, |throttle| throttle.room(now));
        if is_tight && self.machine.log().memory().is_over(Share::Output) {
            room.bytes = room.bytes.min(TIGHT_BYTES.saturating_sub(self.link.pending_bytes()));
        }
        self.link.output().room = room;
        let turned = self.run_turn(happened, scratch, now);
        self.link.output().room = Room::default();
        if let Some(measured) = measured {
            measured.take(M::IS_METERED, self.link.pending_bytes(), now);
        }
        turned
    }

    fn run_turn(
        &mut self,
        happened: &Happened,
        scratch: &mut Vec<u8>,
        now: Instant,
    ) -> Result<(), End<M::Error>> {
        self.machine.begin_turn(now);
        if happened.mail {
            self.take_mail(now)?;
        }
        if happened.expired {
            self.expire(now)?;
        }
        if let Some(read) = happened.input {
            self.take_input(read, scratch, now)?;
        }
        let has_more = self.machine.end_turn(self.link.output()).map_err(End::Protocol)?;
        self.link.flags.set(Flags::MORE, has_more);
        if self.link.flags.has(Flags::BEFORE_LOGIN) { self.count_held() } else { Ok(()) }
    }

    /// Counts what the client holds until it has logged in.
    fn count_held(&mut self) -> Result<(), End<M::Error>> {
        let is_before = self.machine.place().is_none();
        self.link.flags.set(Flags::BEFORE_LOGIN, is_before);
        let held = if is_before { self.link.input.kept_bytes() + self.machine.held_bytes() } else { 0 };
        Ok(self.link.hold(held)?)
    }

    fn take_mail(&mut self, now: Instant) -> Result<(), End<M::Error>> {
        let mut tokens = pool::take_tokens();
        self.machine.mailbox().drain(&mut tokens);
        // Tokens are sorted and these are the greatest.
        let is_shutdown = tokens.pop_if(|token| *token == SHUTDOWN).is_some();
        let is_closed = tokens.pop_if(|token| *token == CLOSE).is_some();
        if tokens.pop_if(|token| *token == OPENED).is_some() {
            self.link.flags.set(Flags::AT_GATE, false);
        }
        let is_evicted = tokens.pop_if(|token| *token == EVICT).is_some();
        let woken = self.machine.wake(&tokens, self.link.output());
        pool::give_tokens(tokens);
        woken.map_err(End::Protocol)?;
        if is_evicted {
            return Err(NoMemory.into());
        }
        if is_closed && let Some(reason) = self.machine.mailbox().closing() {
            self.machine.close(&reason, now, self.link.output()).map_err(End::Protocol)?;
        }
        if is_shutdown {
            self.machine.shutdown(now, self.link.output()).map_err(End::Protocol)?;
        }
        Ok(())
    }

    /// Reads once, if the machine and the log take input.
    fn poll_input(
        &mut self,
        happened: &mut Happened,
        scratch: &mut Vec<u8>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<(), End<M::Error>> {
        // A machine that measures on its own answers requests: whatever it owes, it takes no more of them.
        let is_held = self.link.throttle.as_ref().is_some_and(|throttle| {
            throttle.holds_input() || (!M::IS_METERED && throttle.holds_deliveries())
        });
        let takes_input = !is_held && self.machine.takes_input(self.link.pending_bytes());
        let is_tight = self.machine.log().memory().is_tight();
        let may_keep = !is_tight || self.link.kept.as_mut().is_none_or(|kept| kept.may_read(now));
        if !takes_input || !may_keep || !self.is_admitted(happened, now, cx)? {
            self.link.flags.set(Flags::READ, false);
            return Ok(());
        }
        if !self.link.flags.has(Flags::READ) {
            // The silence of a client that was not read is not its own.
            self.link.flags.set(Flags::READ, true);
            self.link.has_heard(now);
        }
        if self.link.flags.has(Flags::BLOCKED) {
            happened.input = Some(0);
            return Ok(());
        }
        let Link { io, input, throttle, .. } = &mut self.link;
        let throttle = throttle.as_ref().filter(|_| M::IS_METERED);
        let read_bytes = if is_tight { M::READ_BYTES.min(TIGHT_BYTES) } else { M::READ_BYTES };
        let read_bytes = throttle.map_or(read_bytes, |throttle| throttle.read_bytes(read_bytes, now));
        match input.poll_read(&mut **io, scratch, read_bytes, cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(0)) => return Err(End::Closed),
            Poll::Ready(read) => {
                let read = read?;
                count(Count::BytesReceived, read as u64);
                if let Some(throttle) = throttle {
                    throttle.has_read(read, now);
                }
                happened.input = Some(read);
            }
        }
        Ok(())
    }

    /// Whether the log and the gate admit input.
    fn is_admitted(&mut self, happened: &mut Happened, now: Instant, cx: &mut Context<'_>) -> Turn<M> {
        let mut is_held_back = false;
        if self.machine.needs_admission() {
            match self.machine.log().poll_admit(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    happened.other = true;
                    self.machine.log_failed(error, self.link.output()).map_err(End::Protocol)?;
                }
                Poll::Pending => is_held_back = true,
            }
        }
        let is_held_back = is_held_back || (self.machine.is_at_gate() && self.is_shut_out());
        if is_held_back != self.link.flags.has(Flags::HELD_BACK) {
            happened.other = true;
            self.link.flags.set(Flags::HELD_BACK, is_held_back);
            self.machine.held_back(is_held_back, now, self.link.output());
        }
        Ok(!is_held_back)
    }

    /// Whether the gate is shut. Then this task is woken when it opens.
    fn is_shut_out(&mut self) -> bool {
        let is_shut = |driver: &Self| driver.machine.log().gate().shortage().is_some();
        if !is_shut(self) {
            return false;
        }
        if !self.link.flags.has(Flags::AT_GATE) {
            self.link.connections.hold(self.link.slot);
            self.link.flags.set(Flags::AT_GATE, true);
        }
        // It may have opened before this connection was noted.
        is_shut(self)
    }

    fn take_input(&mut self, read: usize, scratch: &mut Vec<u8>, now: Instant) -> Result<(), End<M::Error>> {
        let Link { input, output, .. } = &mut self.link;
        let output = output.get_or_insert_with(pool::take_output);
        let take = |view: <M::Input as Input>::View<'_>| self.machine.input(view, output);
        let progress = input.offer(scratch, read, take).map_err(End::Protocol)?;
        self.link.flags.set(Flags::BLOCKED, progress.blocked);
        self.link.flags.set(Flags::HOLDS_MEMORY, M::Input::HOLDS_MEMORY);
        // Input that the machine leaves for its next turn is not the client's silence.
        if progress.used > 0 || progress.blocked || (M::BYTES_ARE_ACTIVITY && read > 0) {
            self.link.has_heard(now);
        }
        Ok(())
    }

    /// Has this task woken by the commit that it waits for. True if there is something to do instead.
    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Turn<M> {
        let Some(lsn) = self.machine.awaits() else { return Ok(false) };
        match self.machine.log().poll_committed(lsn, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => {
                self.machine.log_failed(error, self.link.output()).map_err(End::Protocol)?;
                Ok(true)
            }
        }
    }

    // ---- deadlines

    /// When the output counts as stalled.
    fn stall_due(&self) -> Option<Instant> {
        self.link.stalled_since().map(|since| since + self.machine.timeouts().write_stall)
    }

    /// When memory is freed.
    fn idle_due(&self, now: Instant) -> Option<Instant> {
        self.link.flags.has(Flags::HOLDS_MEMORY).then(|| self.link.activity(now).heard + IDLE_AFTER)
    }

    /// The earliest deadline.
    fn due(&self, now: Instant) -> Option<Instant> {
        let activity = self.link.activity(now);
        let throttled = self.link.throttle.as_ref().and_then(|throttle| throttle.due());
        let retry = self.link.kept.as_ref().and_then(|kept| kept.retry());
        let deadlines =
            [self.machine.deadline(&activity), self.stall_due(), self.idle_due(now), throttled, retry];
        deadlines.into_iter().flatten().min()
    }

    /// Has this task woken at the earliest deadline. True if it has passed.
    fn poll_timer(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(due) = self.due(now) else { return false };
        let timer = self.link.timer.get_or_insert_with(|| Timer::new(due, now));
        timer.as_mut().poll(due, cx).is_ready()
    }

    fn expire(&mut self, now: Instant) -> Result<(), End<M::Error>> {
        // The timer may have fired after `now` was read.
        let now = now.max(Instant::now());
        if self.stall_due().is_some_and(|due| due <= now) {
            return Err(End::Stalled);
        }
        if self.idle_due(now).is_some_and(|due| due <= now) {
            self.link.flags.set(Flags::HOLDS_MEMORY, false);
            self.link.input.free();
            self.machine.idle();
        }
        if let Some(kept) = &mut self.link.kept {
            kept.tried(now);
        }
        let activity = self.link.activity(now);
        if self.machine.deadline(&activity).is_some_and(|due| due <= now) {
            self.machine.expired(&activity, now, self.link.output()).map_err(End::Protocol)?;
        }
        Ok(())
    }

    // ---- the end

    /// Ends the connection: the machine first, so that nothing of the broker waits for a slow socket, then the socket.
    pub async fn finish(mut self, end: End<M::Error>) {
        let cpu = TurnCpu::started(self.machine.timeouts().slow_turn_cpu);
        let started = Instant::now();
        let close = self.machine.end(&end, self.link.output());
        self.measure(started.elapsed(), &cpu);
        let Driver { mut machine, mut link } = self;
        link.throttle = None;
        if matches!(end, End::NoMemory(_)) {
            link.connections.traffic().count_evicted();
        }
        let close = match &end {
            // It would keep the memory until the client has taken its last bytes.
            End::NoMemory(_) if link.own_pending_bytes() > TIGHT_BYTES => Close::Abort,
            _ => close,
        };
        // Nothing more is taken; what was kept is free before the client has closed its side.
        (link.input, link.kept) = (M::Input::default(), None);
        // A client that does not take its last bytes holds up nobody who waits for its end.
        if let Some(place) = machine.place() {
            place.leave();
        }
        if close == Close::Abort {
            release(machine, &link.connections);
            return;
        }
        let linger = machine.timeouts().linger;
        let (linger, drain) = match link.connections.is_shutting_down() {
            true => (linger.min(SHUTDOWN_LINGER), SHUTDOWN_DRAIN),
            false => (linger, linger),
        };
        let mut closing = pin!(async move {
            while let Some(lsn) = machine.owes() {
                link.flush().await?;
                if machine.log().wait_committed(lsn).await.is_err() {
                    break;
                }
                if machine.end_turn(link.output()).is_err() {
                    break;
                }
            }
            release(machine, &link.connections);
            link.flush().await?;
            if close == Close::PeerFirst {
                link.drain().await?;
            }
            link.io.shutdown().await?;
            timeout(drain, link.drain()).await.unwrap_or(Ok(()))
        });
        let closed: Result<io::Result<()>, _> = timeout(linger, closing.as_mut()).await;
        if let Ok(Err(error)) = closed {
            tracing::trace!(%error, "last output not taken");
        }
    }
}

/// Drops what a connection that ended held, which may be as much work as a turn.
fn release<M: Machine>(machine: M, connections: &Connections) {
    let Timeouts { slow_turn, slow_turn_cpu, .. } = *machine.timeouts();
    let peer = machine.place().map(LiveConnection::peer);
    let (cpu, started) = (TurnCpu::started(slow_turn_cpu), Instant::now());
    drop(machine);
    let work = || (peer, describe_work());
    connections.traffic().turns().record(started.elapsed(), &cpu, slow_turn, work);
    connections.traffic().add_tally();
}

/// Has this task polled again after all others that can go on.
fn yield_to_others(cx: &mut Context<'_>) {
    // Its first poll hands the waker to the runtime.
    let _pending = pin!(tokio::task::yield_now()).poll(cx);
}
