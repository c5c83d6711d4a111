//! A broker that runs: started, asked whether it answers, started again, and stopped by the ids of its processes.

mod launch;

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::contestant::Contestant;
use crate::places::Places;
use crate::usage;
use launch::{at, free_ports};

const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// So much of a broker's own error is told.
const ERROR_CHARS: usize = 200;

/// A broker that runs.
pub(crate) struct Broker {
    pub(crate) contestant: Contestant,
    pub(crate) version: String,
    child: Child,
    /// What was run, to run it again.
    command: Command,
    data: PathBuf,
    /// Those it needs.
    with: Vec<Broker>,
    for_latency: bool,
    /// Where `perf` writes what it sees in the window of a run, if it shall look.
    pub(crate) record: Option<PathBuf>,
    pub(crate) kafka: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) amqp: SocketAddr,
    pub(crate) started_in: Duration,
}

impl Broker {
    pub(crate) fn start(contestant: Contestant, places: &Places) -> Result<Self> {
        let mut with = Vec::new();
        if contestant == Contestant::Bridged {
            with.push(Self::start(Contestant::Mosquitto, places)?);
            with.push(Self::start(Contestant::Kafka, places)?);
        }
        let port = free_ports()?;
        let data = places.fresh_data();
        fs::create_dir_all(&data)?;
        let (mut command, version) = launch::command(contestant, port, &data, &with, places)?;
        command
            .stdin(Stdio::null())
            .stdout(File::create(data.join("out"))?)
            .stderr(File::create(data.join("err"))?);
        let began = Instant::now();
        let child = command.spawn().context("setpriv")?;
        let own = contestant.is_inver() || contestant == Contestant::Sink;
        let mut broker = Self {
            contestant,
            version,
            child,
            command,
            data,
            with,
            for_latency: places.for_latency,
            record: None,
            kafka: at(port),
            mqtt: at(if own { port + 1 } else { port }),
            amqp: at(if own { port + 2 } else { port }),
            started_in: Duration::ZERO,
        };
        if let [mosquitto, kafka] = broker.with.as_slice() {
            (broker.mqtt, broker.kafka) = (mosquitto.mqtt, kafka.kafka);
        }
        broker.wait_ready(began)?;
        broker.started_in = began.elapsed();
        Ok(broker)
    }

    /// Ends it in good order and starts it on the same data; returns how long the start took.
    pub(crate) fn restart(&mut self) -> Result<Duration> {
        self.stop();
        let began = Instant::now();
        self.child = self.command.spawn().context("setpriv")?;
        self.wait_ready(began)?;
        Ok(began.elapsed())
    }

    /// Ready is who answers its protocol, not who only listens.
    fn wait_ready(&mut self, began: Instant) -> Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(self.data.join("err")).unwrap_or_default();
                bail!(
                    "{} ended with {status}: {}",
                    self.contestant,
                    said.lines().rev().take(8).collect::<Vec<_>>().join("\n")
                );
            }
            if self.answers() {
                return Ok(());
            }
            ensure!(began.elapsed() < START_TIMEOUT, "{} does not answer", self.contestant);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> bool {
        // ApiVersions 0; CONNECT of MQTT 3.1.1; the header of AMQP.
        let api_versions: &[u8] = &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0, 0];
        let connect: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01b";
        let asks = [(self.kafka, api_versions), (self.mqtt, connect), (self.amqp, b"AMQP\x00\x00\x09\x01")];
        let asks = match self.contestant {
            Contestant::Kafka => asks.get(..1),
            Contestant::Mosquitto => asks.get(1..2),
            Contestant::Rabbitmq => asks.get(2..),
            Contestant::Sink | Contestant::Bridged => asks.get(..0),
            _ => Some(asks.as_slice()),
        };
        asks.unwrap_or_default().iter().all(|(to, bytes)| {
            let ask = || {
                let mut stream = TcpStream::connect(to)?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                std::io::Write::write_all(&mut stream, bytes)?;
                stream.read(&mut [0; 16])
            };
            ask().is_ok_and(|count| count > 0)
        }) && TcpStream::connect(self.kafka).is_ok()
    }

    /// The process and all below it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let own = usage::tree(self.child.id());
        self.with.iter().map(Self::pids).fold(own, |pids, more| [pids, more].concat())
    }

    /// The last error in what it wrote, if it wrote one.
    pub(crate) fn last_error(&self) -> Option<String> {
        let said = ["err", "out"].map(|file| fs::read_to_string(self.data.join(file)).unwrap_or_default());
        let is_error =
            |line: &&str| ["Too many open files", "ERROR", "panicked"].iter().any(|mark| line.contains(mark));
        let line = said.iter().find_map(|said| said.lines().rev().find(is_error))?;
        Some(line.chars().take(ERROR_CHARS).collect())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Mosquitto writes message by message: held together by the kernel for throughput, sent at once for latency.
    pub(crate) fn is_tuned_otherwise(&self, places: &Places) -> bool {
        self.contestant == Contestant::Mosquitto && self.for_latency != places.for_latency
    }

    /// Ends it and starts another in its place, with a new folder.
    pub(crate) fn renew(&mut self, places: &Places) -> Result<()> {
        self.with.iter_mut().for_each(Self::stop);
        self.stop();
        *self = Self::start(self.contestant, places)?;
        Ok(())
    }

    fn stop(&mut self) {
        if self.has_ended() {
            return;
        }
        let pids = usage::tree(self.child.id());
        let signal = |signal| {
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
                // Those that have ended already cannot be signalled, and need not be.
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
