//! Resource usage of a process and its descendants, from `/proc`.

use std::fs;
use std::ops::Sub;

/// Ticks per second in `/proc/PID/stat`: USER_HZ, 100 on every supported Linux.
const TICKS_PER_S: f64 = 100.0;

/// Sums over a tree of processes since their start; `rss_bytes` is the current value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_user_s: f64,
    pub(crate) cpu_system_s: f64,
    pub(crate) rss_bytes: u64,
    /// Bytes written to the storage layer (`write_bytes`).
    pub(crate) disk_bytes: u64,
    /// Voluntary context switches: close to the number of wake-ups.
    pub(crate) switches: u64,
}

impl Usage {
    pub(crate) fn cpu_s(&self) -> f64 {
        self.cpu_user_s + self.cpu_system_s
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu_user_s: self.cpu_user_s - earlier.cpu_user_s,
            cpu_system_s: self.cpu_system_s - earlier.cpu_system_s,
            rss_bytes: self.rss_bytes,
            disk_bytes: self.disk_bytes.saturating_sub(earlier.disk_bytes),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
    rss_pages: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; numbers follow it.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: number(1)? as u32,
        user_ticks: number(11)?,
        system_ticks: number(12)?,
        rss_pages: number(21)?,
    })
}

/// `root` and all its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(stat) = stat(pid) {
            parents.push((pid, stat.parent));
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// The value of a line `key: value` in a file of `/proc`.
fn line(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

/// The usage of these processes so far.
pub(crate) fn of(pids: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for &pid in pids {
        let Some(stat) = stat(pid) else { continue };
        sum.cpu_user_s += stat.user_ticks as f64 / TICKS_PER_S;
        sum.cpu_system_s += stat.system_ticks as f64 / TICKS_PER_S;
        sum.rss_bytes += stat.rss_pages * 4096;
        if let Ok(io) = fs::read_to_string(format!("/proc/{pid}/io")) {
            sum.disk_bytes += line(&io, "write_bytes:");
        }
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            if let Ok(status) = fs::read_to_string(task.path().join("status")) {
                sum.switches += line(&status, "voluntary_ctxt_switches:");
            }
        }
    }
    sum
}
