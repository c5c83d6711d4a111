//! Profiles by `perf`: samples of a process, attributed to purposes.
//!
//! A kernel sample is attributed to the nearest frame above it that shows its purpose, a user-space sample to its function,
//! because frame pointers are missing there.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::broker_kind::BrokerKind;

/// Samples per second; not a divisor of common timer frequencies.
const FREQUENCY: &str = "997";
/// Functions listed one by one.
const TOP: usize = 12;
/// Purposes of kernel samples: the frame nearest to the sample whose symbol contains one of the words decides.
const KERNEL: [(&str, &[&str]); 4] = [
    ("wake-ups and scheduling", &["schedule", "futex", "epoll", "eventfd", "wake_up", "ttwu", "do_poll"]),
    ("memory", &["page_fault", "mm_fault", "mmap", "munmap", "madvise", "sys_brk", "mprotect"]),
    ("network", &["tcp_", "sock_", "inet_", "net_rx", "skb_", "sys_sendto", "sys_recvfrom", "loopback"]),
    (
        "disk",
        &[
            "ext4",
            "xfs_",
            "fsync",
            "fdatasync",
            "blk_",
            "bio_",
            "io_submit",
            "jbd2",
            "vfs_write",
            "vfs_read",
            "virtqueue",
            "filemap",
        ],
    ),
];
const CHECKSUM_AND_COPY: &[&str] = &["crc", "memcpy", "memmove", "memset", "copy_nonoverlapping"];
const ALLOCATION: &[&str] = &["malloc", "free", "realloc", "calloc", "mi_", "_rjem_", "alloc::"];

/// CPU time of one broker in one workload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) samples: u64,
    pub(crate) cpu_s_per_million: f64,
    /// Shares of all samples, by purpose.
    pub(crate) purposes: BTreeMap<String, f64>,
    /// Functions with the most samples, and their shares.
    pub(crate) functions: Vec<(String, f64)>,
}

/// A running `perf record`. Dropping it ends the recording, even where a run fails in its window.
pub(crate) struct Recorder(Child);

impl Recorder {
    pub(crate) fn begin(pids: &[u32], file: &Path) -> Result<Self> {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let child = Command::new("perf")
            .args(["record", "-q", "-g", "-F", FREQUENCY, "-p", &pids.join(","), "-o"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(Self(child.context("perf")?))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            // A recorder that has ended by itself left no file, which is reported where that is read.
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.0.wait();
    }
}

/// Reads what `perf record` wrote.
pub(crate) fn read(file: &Path) -> Result<Profile> {
    let output = Command::new("perf")
        .args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"])
        .arg(file)
        .output()
        .context("perf script")?;
    let profile = sum(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        profile.samples > 0,
        "perf recorded no samples: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(profile)
}

/// Parses samples: the thread's name, then one frame per line from the innermost, separated by blank lines.
fn sum(script: &str) -> Profile {
    let (mut purposes, mut functions) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    let mut samples = 0;
    for sample in script.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let (Some(thread), Some(leaf)) = (lines.next(), lines.next()) else { continue };
        samples += 1;
        let frames: Vec<&str> = std::iter::once(leaf).chain(lines).collect();
        *purposes.entry(purpose(thread.trim(), &frames).to_owned()).or_default() += 1;
        *functions.entry(name(leaf)).or_default() += 1;
    }
    let share = |count: u64| count as f64 / samples as f64;
    let mut functions: Vec<_> = functions.into_iter().map(|(name, count)| (name, share(count))).collect();
    functions.sort_by(|one, other| other.1.total_cmp(&one.1));
    functions.truncate(TOP);
    let purposes = purposes.into_iter().map(|(name, count)| (name, share(count))).collect();
    Profile { samples, cpu_s_per_million: 0.0, purposes, functions }
}

fn is_kernel(frame: &str) -> bool {
    frame.contains("([kernel") || frame.contains("([guest.kernel") || frame.contains(".ko)")
}

fn purpose(thread: &str, frames: &[&str]) -> &'static str {
    let holds = |frame: &str, marks: &[&str]| marks.iter().any(|mark| frame.contains(mark));
    let Some(leaf) = frames.first() else { return "other" };
    if thread.starts_with("C1 Comp") || thread.starts_with("C2 Comp") {
        return "compiling while it runs";
    }
    if thread.starts_with("G1 ") || thread.starts_with("GC Thread") || thread.starts_with("VM Thread") {
        return "garbage collection";
    }
    if is_kernel(leaf) {
        return frames
            .iter()
            .take_while(|frame| is_kernel(frame))
            .find_map(|frame| KERNEL.iter().find(|(_, marks)| holds(frame, marks)))
            .map_or("kernel, other", |(purpose, _)| purpose);
    }
    let symbol = name(leaf);
    if holds(&symbol, CHECKSUM_AND_COPY) {
        "checksum and copy"
    } else if holds(&symbol, ALLOCATION) {
        "allocation"
    } else {
        "the broker itself"
    }
}

/// The function of a frame: `   7f12 function (/path/of/binary)`.
fn name(frame: &str) -> String {
    let frame = frame.trim();
    let symbol = frame.split_once(' ').map_or(frame, |(_, rest)| rest);
    let (symbol, of) = symbol.rsplit_once(" (").unwrap_or((symbol, ""));
    if symbol == "[unknown]" {
        let of = of.trim_end_matches(')').rsplit('/').next().unwrap_or(of);
        return if of.starts_with("perf-") || of.contains("anon") {
            "compiled code".into()
        } else {
            of.into()
        };
    }
    symbol.to_owned()
}

/// Purposes of all these profiles, largest shares first.
pub(crate) fn purposes(profiles: &BTreeMap<BrokerKind, Profile>) -> Vec<String> {
    let mut sums = BTreeMap::<&str, f64>::new();
    for profile in profiles.values() {
        for (purpose, share) in &profile.purposes {
            *sums.entry(purpose).or_default() += share;
        }
    }
    let mut purposes: Vec<_> = sums.into_iter().collect();
    purposes.sort_by(|one, other| other.1.total_cmp(&one.1));
    purposes.into_iter().map(|(purpose, _)| purpose.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_attributed_to_purposes() {
        let script = "\
worker
\tffff01 rep_movs_alternative ([kernel.kallsyms])
\tffff02 tcp_sendmsg ([kernel.kallsyms])
\tffff03 do_syscall_64 ([kernel.kallsyms])
\t7f01 send (/usr/lib/libc.so)

worker
\tffff01 try_to_wake_up ([kernel.kallsyms])
\tffff02 tcp_rcv_established ([kernel.kallsyms])

worker
\tffff01 rep_movs_alternative ([kernel.kallsyms])
\tffff02 ext4_file_write_iter ([kernel.kallsyms])

worker
\t5501 crc32c::update (/inver)
\t5502 vfs_write (/inver)

worker
\t5501 inver::route (/inver)

C2 CompilerThre
\t7f01 PhaseLive::compute (/libjvm.so)

";
        let profile = sum(script);
        assert_eq!(profile.samples, 6);
        let names: Vec<&str> = profile.purposes.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "checksum and copy",
                "compiling while it runs",
                "disk",
                "network",
                "the broker itself",
                "wake-ups and scheduling"
            ]
        );
        assert!(profile.functions.iter().any(|(name, share)| name == "inver::route" && *share > 0.1));
    }

    #[test]
    fn dropping_a_recorder_ends_it() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        drop(Recorder(child));
        assert!(rustix::process::test_kill_process(pid).is_err(), "it is still running");
    }
}
