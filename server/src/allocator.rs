//! Has the C library's allocator give back to the system what the broker frees.
//!
//! glibc takes an allocation above a size straight from the system and gives it back when it is freed. But it raises that
//! size with each one that is freed, up to 32 MiB: then large allocations come from its heaps too, of which it gives back
//! the end alone. After clients have sent large messages a process keeps several times of what it uses, for which the
//! kernel ends it in a container. So the size is fixed here, to a part of the memory that there is. glibc reads it from the
//! environment when a program starts, so the program starts itself again, before it has done anything else.
//!
//! Other C libraries do not raise such a size.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::memory::available_bytes;

/// Where glibc is told.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// What an operator may have set there.
const MMAP_THRESHOLD: &str = "glibc.malloc.mmap_threshold";
const TRIM_THRESHOLD: &str = "glibc.malloc.trim_threshold";

/// There once the program has started itself again: glibc removes its own variable from a program with privileges.
const STARTED_AGAIN: &str = "_INVER_STARTED_AGAIN";

/// Allocations of this part of the memory are taken from the system, within bounds: smaller ones cost more than they save,
/// and a Kafka client's batch of 1 MiB stays in the heaps where there is much memory.
const PART: u64 = 4096;
const BYTES: (u64, u64) = (32 << 10, 2 << 20);
/// As much stays at the end of a heap.
const KEPT_PARTS: u64 = 4;

/// Starts the program again with the size fixed, unless that has happened or the operator has chosen one. Goes on with
/// glibc's own rule if it cannot.
pub(crate) fn fix_size_for_system() {
    if !cfg!(target_env = "gnu") || env::var_os(STARTED_AGAIN).is_some() {
        return;
    }
    let Some(tunables) = tunables(env::var_os(TUNABLES).as_deref(), available_bytes()) else { return };
    let (Ok(program), mut arguments) = (env::current_exe(), env::args_os()) else { return };
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Returns only if it failed.
    let _error = command.args(arguments).env(TUNABLES, tunables).env(STARTED_AGAIN, "1").exec();
}

/// The value of the variable beside what is set already; none if the size is set there.
fn tunables(set: Option<&OsStr>, available: Option<u64>) -> Option<OsString> {
    let set = set.unwrap_or_default();
    if set.to_string_lossy().contains(MMAP_THRESHOLD) {
        return None;
    }
    let bytes = (available.unwrap_or(u64::MAX) / PART).clamp(BYTES.0, BYTES.1);
    let mut tunables = set.to_owned();
    if !tunables.is_empty() {
        tunables.push(":");
    }
    tunables.push(format!("{MMAP_THRESHOLD}={bytes}"));
    if !set.to_string_lossy().contains(TRIM_THRESHOLD) {
        tunables.push(format!(":{TRIM_THRESHOLD}={}", KEPT_PARTS * bytes));
    }
    Some(tunables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_a_part_of_the_memory_beside_what_the_operator_set() {
        let of = |set: &str, available| {
            let set = (!set.is_empty()).then(|| OsStr::new(set));
            tunables(set, available).map(|tunables| tunables.into_string().unwrap())
        };
        let small = "glibc.malloc.mmap_threshold=32768:glibc.malloc.trim_threshold=131072";
        assert_eq!(of("", Some(128 << 20)).unwrap(), small);
        let trim = "glibc.malloc.trim_threshold=7";
        assert_eq!(of(trim, Some(1)).unwrap(), format!("{trim}:glibc.malloc.mmap_threshold=32768"));
        assert_eq!(
            of("glibc.malloc.arena_max=1", Some(1)).unwrap(),
            format!("glibc.malloc.arena_max=1:{small}")
        );
        let large = "glibc.malloc.mmap_threshold=2097152:glibc.malloc.trim_threshold=8388608";
        assert_eq!([of("", Some(1 << 40)).unwrap(), of("", None).unwrap()], [large, large]);
        assert_eq!(of("glibc.malloc.mmap_threshold=1", None), None);
    }
}
