//! Paths of binaries, scripts and scratch data.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::machine::Machine;

/// Folders, and the resources that a broker gets.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) root: PathBuf,
    pub(crate) inver: PathBuf,
    pub(crate) peers: PathBuf,
    /// Cores of the broker, in the format of `taskset`.
    pub(crate) cores: String,
    /// Tune brokers for latency where they must choose between latency and throughput.
    pub(crate) tune_for_latency: bool,
}

impl Paths {
    /// The folder of scratch data. Each name in it begins with the id of the process that owns it.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("target/bench-data")
    }

    /// A folder that no other broker has used: a broker on a reused port must not find the data of the one before, nor
    /// lose its own when that is removed.
    pub(crate) fn fresh_data(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.data().join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The same paths, with all cores for the broker.
    pub(crate) fn on_every_core(&self) -> Self {
        // This process may run on one core only.
        Self { cores: format!("0-{}", Machine::here().cores.max(1) - 1), ..self.clone() }
    }

    pub(crate) fn script(&self, name: &str) -> Command {
        // The script ends with the bench, even if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(self.root.join("bench/peers").join(name));
        command.env("PEERS", &self.peers);
        command
    }
}

/// Removes scratch data of interrupted runs: folders and files named after processes that no longer exist.
pub(crate) fn clear_interrupted(paths: &Paths) {
    for entry in fs::read_dir(paths.data()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split(['-', '.']).next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            // Leftovers that cannot be removed do no harm.
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_have_their_own_folders_and_those_of_interrupted_runs_are_removed() {
        let root = std::env::temp_dir().join(format!("inver-bench-{}", std::process::id()));
        let (inver, peers, cores) = (PathBuf::new(), PathBuf::new(), String::new());
        let paths = Paths { root: root.clone(), inver, peers, cores, tune_for_latency: false };
        let (one, other) = (paths.fresh_data(), paths.fresh_data());
        assert_ne!(one, other);
        // Process ids of Linux are smaller.
        let leftover = paths.data().join("99999999-0");
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&leftover).unwrap();
        clear_interrupted(&paths);
        assert!(one.exists() && !leftover.exists());
        fs::remove_dir_all(root).unwrap();
    }
}
