//! The memory that the process may use, and how it is divided.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use inver_storage::LogOptions;

/// The default of `memory.limit`, in percent of what the process may use. The rest is for what is not accounted for:
/// names, bindings, idle connections, the allocator and the kernel's buffers.
const PERCENT: u64 = 60;

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// The memory that this process may use: the least limit of its control groups, else what the machine has.
pub(crate) fn available_bytes() -> Option<u64> {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = limit_files(&groups).into_iter().filter_map(|file| limit_in(&file)).min();
    let of_machine = || {
        let text = read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    match (of_groups, of_machine()) {
        (Some(group), Some(machine)) => Some(u64::min(group, machine)),
        (group, machine) => group.or(machine),
    }
}

fn limit_in(file: &Path) -> Option<u64> {
    read_to_string(file).ok()?.trim().parse().ok()
}

/// The files that may limit a process with these lines in `/proc/self/cgroup`: of its group and of every group above it, in
/// both versions. In a container its own group may be seen at the top, and the path not at all.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files =
        vec![Path::new(GROUPS).join("memory.max"), Path::new(GROUPS).join("memory/memory.limit_in_bytes")];
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => (PathBuf::from(GROUPS), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (Path::new(GROUPS).join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|group| root.join(group).join(name)));
    }
    files
}

/// The limit that is configured, or else the default.
pub(crate) fn limit_bytes(configured: Option<u64>) -> usize {
    let limit = configured.or_else(|| available_bytes().map(|bytes| bytes / 100 * PERCENT));
    limit.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Caches and queues of the log that fit the limit: each takes a part of it at most.
pub(crate) fn fit_log(options: &LogOptions, limit: usize) -> LogOptions {
    LogOptions {
        memory_limit: Some(limit),
        tail_cache_bytes_max: options.tail_cache_bytes_max.min(limit / 8),
        submit_bytes_max: options.submit_bytes_max.min(limit / 8),
        checkpoint_cache_bytes_max: options.checkpoint_cache_bytes_max.min(limit / 32),
        index_cache_bytes_max: options.index_cache_bytes_max.min(limit / 32),
        read_buffers_bytes_max: options.read_buffers_bytes_max.min(limit / 32),
        ..options.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(groups: &str) -> Vec<String> {
        limit_files(groups).iter().skip(2).map(|file| file.display().to_string()).collect()
    }

    #[test]
    fn the_groups_above_limit_a_process_as_well() {
        assert_eq!(
            named("0::/system.slice/inver.service\n"),
            [
                "/sys/fs/cgroup/system.slice/inver.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            named("5:devices:/x\n4:hugetlb,memory:/docker/abc\n0::/\n"),
            [
                "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(named("nonsense\n::\n"), ["/sys/fs/cgroup/memory.max"]);
    }

    #[test]
    fn caches_fit_a_small_limit_and_keep_their_size_in_a_large_one() {
        let small = fit_log(&LogOptions::default(), 64 << 20);
        assert_eq!((small.tail_cache_bytes_max, small.index_cache_bytes_max), (8 << 20, 2 << 20));
        let large = fit_log(&LogOptions::default(), 8 << 30);
        assert_eq!(large.tail_cache_bytes_max, LogOptions::default().tail_cache_bytes_max);
    }
}
