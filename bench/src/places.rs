//! Where binaries, scripts and scratch data lie.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::machine::Machine;

/// The folders, and what a broker is given of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) root: PathBuf,
    pub(crate) inver: PathBuf,
    pub(crate) peers: PathBuf,
    /// Cores of the broker, as `taskset` wants them.
    pub(crate) cores: String,
    /// Whether who can be set up for latency or for throughput is set up for latency.
    pub(crate) for_latency: bool,
}

impl Places {
    /// Scratch data, each name beginning with the id of the process that it is of.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("target/bench-data")
    }

    /// A folder that no broker before had: ports come again, and who is started in another's place shall find nothing
    /// there, nor lose its folder when the other's is removed.
    pub(crate) fn fresh_data(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.data().join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The same, but the broker may use whatever there is.
    pub(crate) fn on_every_core(&self) -> Self {
        // This process itself may run on one only.
        Self { cores: format!("0-{}", Machine::here().cores.max(1) - 1), ..self.clone() }
    }

    pub(crate) fn script(&self, name: &str) -> Command {
        // It ends with the bench, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(self.root.join("bench/peers").join(name));
        command.env("PEERS", &self.peers);
        command
    }
}

/// Removes what runs that were interrupted have left: folders and files that are named by a process which is no more.
pub(crate) fn clear_interrupted(places: &Places) {
    for entry in fs::read_dir(places.data()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split(['-', '.']).next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_broker_has_a_folder_of_its_own_and_interrupted_ones_lose_theirs() {
        let root = std::env::temp_dir().join(format!("inver-bench-{}", std::process::id()));
        let (inver, peers, cores) = (PathBuf::new(), PathBuf::new(), String::new());
        let places = Places { root: root.clone(), inver, peers, cores, for_latency: false };
        let (one, other) = (places.fresh_data(), places.fresh_data());
        assert_ne!(one, other);
        // No process has this id: it is above what Linux gives out.
        let left = places.data().join("99999999-0");
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&left).unwrap();
        clear_interrupted(&places);
        assert!(one.exists() && !left.exists());
        fs::remove_dir_all(root).unwrap();
    }
}
