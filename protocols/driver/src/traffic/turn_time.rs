//! For how long connections have their thread: the bound, the histogram by protocol, and the log lines about the longest.
//!
//! Connections share threads, so what one of them does the others wait for. The driver looks at the clock between turns.
//! Within a turn a machine stops taking input when what it did may have taken long ([`is_over`]); a request that takes longer
//! by itself is done piece by piece, or on another thread.

use std::net::SocketAddr;
use std::sync::OnceLock;

use metrics::{Histogram, Unit, describe_histogram, histogram};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Duration, Instant};

/// Time after which other connections of the thread get theirs. A turn that has begun is ended first.
pub const TURN_TIME: Duration = Duration::from_millis(1);

/// Cost of the publishes of a turn ([`Publisher::cost`](inver_broker::Publisher::cost)) from which its time counts as over: a
/// message costs no look at the clock.
pub const PUBLISH_COST_MAX: usize = 20_000;

/// The least time between two lines about long turns of one protocol.
const LINE_EVERY: Duration = Duration::from_secs(1);

const SECONDS: &str = "inver_protocol_turn_seconds";
const CPU_SECONDS: &str = "inver_protocol_turn_cpu_seconds";

/// Whether a turn that began at `since` has used up its time. Looks at the clock: for requests, not for messages.
#[must_use]
pub fn is_over(since: Instant) -> bool {
    since.elapsed() >= TURN_TIME
}

/// The CPU time of a thread when a connection got it; none where it is not measured, which takes two system calls.
pub(crate) struct TurnCpu(Option<Duration>);

impl TurnCpu {
    pub(crate) fn started(is_measured: bool) -> TurnCpu {
        TurnCpu(is_measured.then(thread_cpu))
    }

    /// The CPU time since then.
    fn taken(&self) -> Option<Duration> {
        self.0.map(|started| thread_cpu().saturating_sub(started))
    }
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// The turns of one protocol.
pub(crate) struct TurnTimes {
    protocol: &'static str,
    seconds: Histogram,
    cpu_seconds: OnceLock<Histogram>,
    untold: Mutex<Untold>,
}

/// Long turns without a line of their own.
#[derive(Default)]
struct Untold {
    line_at: Option<Instant>,
    turns: u64,
    longest: Duration,
}

impl TurnTimes {
    pub(crate) fn new(protocol: &'static str) -> TurnTimes {
        describe_histogram!(
            SECONDS,
            Unit::Seconds,
            "Time for which a connection had its thread before others got theirs; what it did on other threads does not count."
        );
        let seconds = histogram!(SECONDS, "protocol" => protocol);
        TurnTimes { protocol, seconds, cpu_seconds: OnceLock::new(), untold: Mutex::default() }
    }

    /// Records the time of turns that ended now. If it is at least `slow`, a line says what they did, unless there was one
    /// just before.
    pub(crate) fn record(
        &self,
        time: Duration,
        cpu: &TurnCpu,
        slow: Duration,
        work: impl FnOnce() -> (Option<SocketAddr>, String),
    ) {
        if time.is_zero() {
            return;
        }
        self.seconds.record(time.as_secs_f64());
        let cpu = cpu.taken();
        if let Some(cpu) = cpu {
            self.cpu_seconds().record(cpu.as_secs_f64());
        }
        if time >= slow {
            self.tell(time, cpu, work);
        }
    }

    fn cpu_seconds(&self) -> &Histogram {
        self.cpu_seconds.get_or_init(|| {
            describe_histogram!(
                CPU_SECONDS,
                Unit::Seconds,
                "CPU time of what a connection did before others of its thread got theirs; only with `limits.slow_turn_cpu`."
            );
            histogram!(CPU_SECONDS, "protocol" => self.protocol)
        })
    }

    fn tell(
        &self,
        time: Duration,
        cpu: Option<Duration>,
        work: impl FnOnce() -> (Option<SocketAddr>, String),
    ) {
        let now = Instant::now();
        let Some((untold, longest)) = self.untold.lock().admit(time, now) else { return };
        let (peer, work) = work();
        let peer = peer.map(tracing::field::display);
        let (ms, untold_longest_ms) = (time.as_millis(), longest.as_millis());
        let cpu_ms = cpu.map(|cpu| cpu.as_millis());
        tracing::warn!(
            protocol = self.protocol,
            peer,
            ms,
            cpu_ms,
            work,
            untold,
            untold_longest_ms,
            "slow turn: other connections of the thread waited"
        );
    }
}

impl Untold {
    /// Whether a line may be written: how many turns had none before it, and the longest of them.
    fn admit(&mut self, time: Duration, now: Instant) -> Option<(u64, Duration)> {
        if self.line_at.is_some_and(|at| now < at + LINE_EVERY) {
            self.turns += 1;
            self.longest = self.longest.max(time);
            return None;
        }
        let Untold { turns, longest, .. } =
            std::mem::replace(self, Untold { line_at: Some(now), ..Untold::default() });
        Some((turns, longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_long_turns_are_limited_and_the_next_one_tells_of_the_others() {
        let (mut untold, start) = (Untold::default(), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(untold.admit(ms(70), start), Some((0, Duration::ZERO)));
        assert_eq!(untold.admit(ms(90), start + ms(1)), None);
        assert_eq!(untold.admit(ms(80), start + ms(999)), None);
        assert_eq!(untold.admit(ms(60), start + LINE_EVERY), Some((2, ms(90))));
        assert_eq!(untold.admit(ms(60), start + 2 * LINE_EVERY), Some((0, Duration::ZERO)));
    }
}
