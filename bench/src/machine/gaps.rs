//! Gaps in the machine's own execution: times in which a core does not run the thread that is pinned to it.
//!
//! The host of a virtual machine takes cores away for milliseconds (hypervisor steal), which bounds the latency of every
//! broker. Gaps are measured once per run, before any broker is started, and shown beside the latencies.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::ops::Sub;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Duration of the measurement.
const MEASURE_TIME: Duration = Duration::from_secs(2);
/// Two readings of the clock further apart than this have a gap between them.
const GAP: Duration = Duration::from_micros(100);
/// Two readings of the clock further apart than this have a long gap between them.
const LONG_GAP: Duration = Duration::from_millis(1);

/// Gaps of one core, seen by a loop that only reads the clock.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CoreGaps {
    pub(crate) core: usize,
    /// Gaps longer than 0.1 ms.
    pub(crate) over_100_us_per_s: f64,
    /// Gaps longer than 1 ms.
    pub(crate) over_1_ms_per_s: f64,
    pub(crate) longest_us: f64,
    /// Share of the time in these gaps.
    pub(crate) lost_share: f64,
    /// Share of the time in which other processes of this machine had the core; not counted as gaps.
    pub(crate) waited_share: f64,
}

impl fmt::Display for CoreGaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "core {}: {:.1} gaps > 0.1 ms and {:.1} > 1 ms a second, the longest {:.1} ms, {:.2} % of the time; other processes {:.2} %",
            self.core,
            self.over_100_us_per_s,
            self.over_1_ms_per_s,
            self.longest_us / 1e3,
            self.lost_share * 100.0,
            self.waited_share * 100.0
        )
    }
}

/// Measures these cores, all at once.
pub(crate) fn measure(cores: &BTreeSet<usize>) -> Result<Vec<CoreGaps>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            cores.iter().map(|core| scope.spawn(|| measure_core(*core, MEASURE_TIME))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a measuring thread panicked"))?)
            .collect()
    })
}

fn measure_core(core: usize, time: Duration) -> Result<CoreGaps> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("pinning a thread to core {core}"))?;
    let mut found = CoreGaps { core, ..CoreGaps::default() };
    let mut waited = runnable_time();
    let (began, runnable_before) = (Instant::now(), waited);
    let (mut last, mut lost) = (began, Duration::ZERO);
    while last - began < time {
        let now = Instant::now();
        let gap = now - last;
        last = now;
        if gap <= GAP {
            continue;
        }
        let runnable_now = runnable_time();
        let by_others = runnable_now.saturating_sub(waited);
        waited = runnable_now;
        // Reading `schedstat` took time that is not a gap.
        last = Instant::now();
        if by_others * 2 > gap {
            continue;
        }
        lost += gap;
        found.over_100_us_per_s += 1.0;
        found.over_1_ms_per_s += f64::from(u8::from(gap > LONG_GAP));
        found.longest_us = found.longest_us.max(gap.as_secs_f64() * 1e6);
    }
    let seconds = began.elapsed().as_secs_f64();
    found.over_100_us_per_s /= seconds;
    found.over_1_ms_per_s /= seconds;
    found.lost_share = lost.as_secs_f64() / seconds;
    found.waited_share = runnable_time().saturating_sub(runnable_before).as_secs_f64() / seconds;
    Ok(found)
}

/// Time for which this thread was runnable while other processes ran; zero where the kernel does not count it.
fn runnable_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// Time of all cores since boot, in ticks of `/proc/stat`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ticks {
    steal: u64,
    all: u64,
}

impl Ticks {
    pub(crate) fn now() -> Self {
        Self::read(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Parses `cpu user nice system idle iowait irq softirq steal guest …`; guest time is included in `user`.
    fn read(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).filter_map(|ticks| ticks.parse().ok()).collect();
        Self { steal: ticks.get(7).copied().unwrap_or(0), all: ticks.iter().sum() }
    }

    /// Share of the time that the hypervisor reports as stolen.
    pub(crate) fn steal_share(self) -> f64 {
        self.steal as f64 / self.all.max(1) as f64
    }
}

impl Sub for Ticks {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { steal: self.steal.saturating_sub(earlier.steal), all: self.all.saturating_sub(earlier.all) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_a_share_of_the_ticks_between_two_readings() {
        let before = Ticks::read("cpu  10 0 10 70 0 0 0 10 5 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
        let after = Ticks::read("cpu  60 0 10 110 0 0 0 20 55 0\n");
        assert_eq!((after - before).steal_share(), 0.1);
        assert_eq!(Ticks::read("").steal_share(), 0.0);
    }

    #[test]
    fn a_core_loses_at_most_all_of_its_time() {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let core = (0..CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)).unwrap();
        let found = measure_core(core, Duration::from_millis(50)).unwrap();
        assert!((0.0..1.0).contains(&found.lost_share), "{found:?}");
        assert!(found.over_1_ms_per_s <= found.over_100_us_per_s, "{found:?}");
    }
}
