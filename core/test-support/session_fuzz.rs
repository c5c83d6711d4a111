//! Fuzzing of whole sessions: a script of bytes decides which of a few connections sends what, where messages are cut, and when
//! connections end. The protocol serves them over memory on one broker, whose state stays from run to run. Nothing may panic, and
//! every connection must end.
//!
//! Included by the tests of each protocol and by the fuzz targets.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use inver_broker::{Broker, BrokerConfig, Connection, ProtocolPlugin};
use inver_storage::{CommitPolicy, Log, LogOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: u64 = 3;
const BUFFER_BYTES: usize = 1 << 20;
/// A connection that was told to end must end within this time.
const END: Duration = Duration::from_secs(30);

/// Bytes that decide.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl Script<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        u64::from(self.byte()) % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub(crate) fn is(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Some bytes as they are.
    pub(crate) fn bytes(&mut self, max: u64) -> Vec<u8> {
        let count = self.below(max + 1) as usize;
        (0..count).map(|_| self.byte()).collect()
    }
}

/// How a protocol's clients speak.
pub(crate) struct Dialect {
    pub(crate) protocol: fn() -> Arc<dyn ProtocolPlugin>,
    /// What a connection sends first.
    pub(crate) login: fn(&mut Script<'_>) -> Vec<u8>,
    /// Any message.
    pub(crate) message: fn(&mut Script<'_>) -> Vec<u8>,
}

struct Stage {
    runtime: Runtime,
    broker: Broker,
    protocol: Arc<dyn ProtocolPlugin>,
    _folder: tempfile::TempDir,
}

thread_local! {
    static STAGE: OnceCell<Stage> = const { OnceCell::new() };
}

fn stage(dialect: &Dialect) -> Stage {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options =
        LogOptions { commit: CommitPolicy::Os, segment_bytes_max: 4 << 20, ..LogOptions::default() };
    let log = Log::open(folder.path(), options).unwrap();
    let protocol = (dialect.protocol)();
    let config = BrokerConfig { origins: vec![protocol.name()], ..BrokerConfig::default() };
    let broker = Broker::open(log, config).unwrap();
    Stage { runtime, broker, protocol, _folder: folder }
}

/// Plays a script.
pub(crate) fn run(dialect: &Dialect, script: &[u8]) {
    STAGE.with(|cell| {
        let stage = cell.get_or_init(|| stage(dialect));
        stage.runtime.block_on(play(stage, dialect, Script(script)));
        assert!(stage.broker.log().failure().is_none(), "the log ended");
    });
}

async fn play(stage: &Stage, dialect: &Dialect, mut script: Script<'_>) {
    let shutdown = CancellationToken::new();
    let mut clients: Vec<Option<DuplexStream>> = (0..CONNECTIONS).map(|_| None).collect();
    let mut serving: Vec<JoinHandle<()>> =
        vec![tokio::spawn(stage.broker.clone().housekeep(shutdown.clone()))];
    while !script.0.is_empty() {
        let at = script.below(CONNECTIONS) as usize;
        if clients[at].is_none() {
            let (mut client, server) = tokio::io::duplex(BUFFER_BYTES);
            let address = ([127, 0, 0, 1], 1).into();
            let connection = Connection::plain(server, address, address, shutdown.clone());
            let (protocol, broker) = (stage.protocol.clone(), stage.broker.clone());
            serving.push(tokio::spawn(async move { protocol.serve(connection, broker).await }));
            send(&mut client, &(dialect.login)(&mut script)).await;
            clients[at] = Some(client);
        }
        let Some(client) = &mut clients[at] else { continue };
        match script.below(8) {
            0..5 => send(client, &(dialect.message)(&mut script)).await,
            5 => {
                // A message that was cut, or changed somewhere.
                let mut message = (dialect.message)(&mut script);
                match script.is() {
                    true => message.truncate(script.below(message.len() as u64 + 1) as usize),
                    false => {
                        let place = script.below(message.len().max(1) as u64) as usize;
                        let byte = script.byte();
                        message.get_mut(place).into_iter().for_each(|it| *it = byte);
                    }
                }
                send(client, &message).await;
            }
            6 => clients[at] = None,
            _ => {}
        }
        for client in clients.iter_mut().flatten() {
            take(client).await;
        }
    }
    drop(clients);
    shutdown.cancel();
    for task in serving {
        let ended = tokio::time::timeout(END, task).await;
        assert!(matches!(ended, Ok(Ok(()))), "a connection or the housekeeping did not end well: {ended:?}");
    }
}

async fn send(client: &mut DuplexStream, bytes: &[u8]) {
    // A connection that has ended takes nothing.
    let _ = tokio::time::timeout(Duration::from_millis(100), client.write_all(bytes)).await;
    tokio::task::yield_now().await;
}

/// Takes what was answered so far.
async fn take(client: &mut DuplexStream) {
    let mut bytes = [0; 4096];
    for _ in 0..16 {
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            read = client.read(&mut bytes) => if !matches!(read, Ok(1..)) { return },
            () = std::future::ready(()) => return,
        }
    }
}

/// Plays random scripts for a bounded number of times, as the gate does.
pub(crate) fn run_some(dialect: &Dialect, scripts: u64) {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for _ in 0..scripts {
        let script: Vec<u8> = (0..600).map(|_| next()).collect();
        run(dialect, &script);
    }
}
