//! A running broker: starting, readiness, restarting, and stopping by the ids of its processes.

mod launch;

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::broker_kind::BrokerKind;
use crate::paths::Paths;
use crate::usage;
use launch::{at, free_ports};

const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest excerpt of a broker's error log.
const ERROR_CHARS: usize = 200;

/// A running broker.
pub(crate) struct Broker {
    pub(crate) kind: BrokerKind,
    pub(crate) version: String,
    child: Child,
    /// The command, for restarts.
    command: Command,
    data: PathBuf,
    /// Brokers that it needs.
    dependencies: Vec<Broker>,
    tune_for_latency: bool,
    /// The file for `perf record` in the window of a run; `None`: no profile.
    pub(crate) record: Option<PathBuf>,
    pub(crate) kafka: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) amqp: SocketAddr,
    pub(crate) started_in: Duration,
}

impl Broker {
    pub(crate) fn start(kind: BrokerKind, paths: &Paths) -> Result<Self> {
        let mut dependencies = Vec::new();
        if kind == BrokerKind::Bridged {
            dependencies.push(Self::start(BrokerKind::Mosquitto, paths)?);
            dependencies.push(Self::start(BrokerKind::Kafka, paths)?);
        }
        let port = free_ports()?;
        let data = paths.fresh_data();
        fs::create_dir_all(&data)?;
        let (mut command, version) = launch::command(kind, port, &data, &dependencies, paths)?;
        command
            .stdin(Stdio::null())
            .stdout(File::create(data.join("out"))?)
            .stderr(File::create(data.join("err"))?);
        let began = Instant::now();
        let child = command.spawn().context("setpriv")?;
        let own = kind.is_inver() || kind == BrokerKind::Sink;
        let mut broker = Self {
            kind,
            version,
            child,
            command,
            data,
            dependencies,
            tune_for_latency: paths.tune_for_latency,
            record: None,
            kafka: at(port),
            mqtt: at(if own { port + 1 } else { port }),
            amqp: at(if own { port + 2 } else { port }),
            started_in: Duration::ZERO,
        };
        if let [mosquitto, kafka] = broker.dependencies.as_slice() {
            (broker.mqtt, broker.kafka) = (mosquitto.mqtt, kafka.kafka);
        }
        broker.wait_ready(began)?;
        broker.started_in = began.elapsed();
        Ok(broker)
    }

    /// Stops it in order and starts it on the same data; returns the duration of the start.
    pub(crate) fn restart(&mut self) -> Result<Duration> {
        self.stop();
        let began = Instant::now();
        self.child = self.command.spawn().context("setpriv")?;
        self.wait_ready(began)?;
        Ok(began.elapsed())
    }

    /// Waits until it answers its protocol; listening is not enough.
    fn wait_ready(&mut self, began: Instant) -> Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.data.join("err")).unwrap_or_default();
                bail!(
                    "{} exited with {status}: {}",
                    self.kind,
                    log.lines().rev().take(8).collect::<Vec<_>>().join("\n")
                );
            }
            if self.answers() {
                return Ok(());
            }
            ensure!(began.elapsed() < START_TIMEOUT, "{} does not answer", self.kind);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> bool {
        // ApiVersions 0; CONNECT of MQTT 3.1.1; AMQP's protocol header.
        let api_versions: &[u8] = &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0, 0];
        let connect: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01b";
        let probes = [(self.kafka, api_versions), (self.mqtt, connect), (self.amqp, b"AMQP\x00\x00\x09\x01")];
        let probes = match self.kind {
            BrokerKind::Kafka => probes.get(..1),
            BrokerKind::Mosquitto => probes.get(1..2),
            BrokerKind::Rabbitmq => probes.get(2..),
            BrokerKind::Sink | BrokerKind::Bridged => probes.get(..0),
            _ => Some(probes.as_slice()),
        };
        probes.unwrap_or_default().iter().all(|(to, bytes)| {
            let probe = || {
                let mut stream = TcpStream::connect(to)?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                std::io::Write::write_all(&mut stream, bytes)?;
                stream.read(&mut [0; 16])
            };
            probe().is_ok_and(|count| count > 0)
        }) && TcpStream::connect(self.kafka).is_ok()
    }

    /// Its process and all descendants.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let own = usage::tree(self.child.id());
        self.dependencies.iter().map(Self::pids).fold(own, |pids, more| [pids, more].concat())
    }

    /// The last error in its log.
    pub(crate) fn last_error(&self) -> Option<String> {
        let logs = ["err", "out"].map(|file| fs::read_to_string(self.data.join(file)).unwrap_or_default());
        let is_error =
            |line: &&str| ["Too many open files", "ERROR", "panicked"].iter().any(|mark| line.contains(mark));
        let line = logs.iter().find_map(|log| log.lines().rev().find(is_error))?;
        Some(line.chars().take(ERROR_CHARS).collect())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Whether Mosquitto needs other settings: it writes message by message, joined by the kernel for throughput, sent
    /// at once for latency.
    pub(crate) fn needs_other_tuning(&self, paths: &Paths) -> bool {
        self.kind == BrokerKind::Mosquitto && self.tune_for_latency != paths.tune_for_latency
    }

    /// Stops it and starts another in its place, with a new folder.
    pub(crate) fn replace(&mut self, paths: &Paths) -> Result<()> {
        self.dependencies.iter_mut().for_each(Self::stop);
        self.stop();
        *self = Self::start(self.kind, paths)?;
        Ok(())
    }

    fn stop(&mut self) {
        if self.has_ended() {
            return;
        }
        let pids = usage::tree(self.child.id());
        let signal = |signal| {
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
                // A process that has ended cannot be signalled, and need not be.
                let _ = kill_process(pid, signal);
            }
        };
        signal(Signal::TERM);
        let end = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < end {
            if self.has_ended() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if !self.has_ended() {
            signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
        if std::env::var_os("INVER_BENCH_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.data);
        }
    }
}
