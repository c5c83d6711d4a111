//! A sink that answers a workload's messages as cheaply as possible, to find the limits of the load generators.
//!
//! It walks frames by their lengths, checks nothing, and relies on what the workloads do: a connection publishes to one
//! topic, exchange or queue. The throughput of a generator against it, on the other core, is what it could demand of a
//! broker that costs next to nothing.

mod amqp;
mod kafka;
mod mqtt;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::broker::Broker;
use crate::broker_kind::BrokerKind;
use crate::paths::Paths;
use crate::progress::Progress;
use crate::report::table;
use crate::results::Results;
use crate::setup::Settings;
use crate::workloads::{Kind, Protocol, WORKLOADS, Workload};

/// Estimated duration of a run beside its window.
const START_TIME: Duration = Duration::from_millis(500);

/// Whether the sink supports a workload: not those that convert messages, keep more than fits in memory, or measure the broker itself.
fn supports(workload: &Workload) -> bool {
    let is_left_out = matches!(
        workload.kind,
        Kind::AmqpToMqtt
            | Kind::KafkaToAmqp { .. }
            | Kind::KafkaBacklog { .. }
            | Kind::MqttSubscriptions { .. }
            | Kind::MqttIdle { .. }
            | Kind::Scale { .. }
            | Kind::Start
    );
    workload.protocol != Protocol::Runtime && !is_left_out
}

/// Runs the workloads against the sink and stores the figures of the generators.
pub(crate) fn measure(
    names: &[String],
    settings: &Settings,
    paths: &Paths,
    progress: &mut Progress,
    results: &mut Results,
) -> Result<()> {
    for workload in selected(names) {
        progress.begin(&format!("sink: {}", workload.id));
        let run = Broker::start(BrokerKind::Sink, paths)
            .and_then(|mut sink| workload.run(&mut sink, settings.lengths));
        match run {
            Ok(figures) => {
                println!("{:<7} {}", workload.id, table::brief(&figures));
                results.sink.insert(workload.id.to_owned(), figures);
            }
            Err(error) => results.problem(format!("{} of the sink: {error:#}", workload.id)),
        }
        crate::report::save(results, &paths.root)?;
        progress.end(planned_each(settings));
    }
    Ok(())
}

/// The named workloads, or all that the sink supports.
fn selected(names: &[String]) -> impl Iterator<Item = &'static Workload> {
    let named = |workload: &Workload| {
        names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(workload.id))
    };
    WORKLOADS.iter().filter(move |workload| supports(workload) && named(workload))
}

/// Estimated duration of these workloads.
pub(crate) fn planned(settings: &Settings, names: &[String]) -> Duration {
    planned_each(settings) * selected(names).count() as u32
}

fn planned_each(settings: &Settings) -> Duration {
    settings.lengths.warmup + settings.lengths.window + START_TIME
}

/// Serves Kafka, MQTT and AMQP on three ports until it is killed.
pub(crate) fn serve(port: u16) -> Result<()> {
    let listen = |port: u16| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let (kafka_port, mqtt_port, amqp_port) = (listen(port)?, listen(port + 1)?, listen(port + 2)?);
    let logs = Arc::new(kafka::Logs::default());
    let captured = Arc::clone(&logs);
    let (topics, queues) = (Arc::<mqtt::Topics>::default(), Arc::<amqp::Queues>::default());
    accept(mqtt_port, move |stream| mqtt::serve(stream, &topics, &captured));
    accept(amqp_port, move |stream| amqp::serve(stream, &queues));
    accept(kafka_port, move |stream| kafka::serve(stream, &logs))
        .join()
        .map_err(|_| anyhow::anyhow!("the sink's thread panicked"))
}

/// A connection that several threads write complete frames to.
type Shared = Arc<Mutex<TcpStream>>;

/// Values by name, shared by all connections.
type Named<T> = Mutex<HashMap<Vec<u8>, T>>;

/// Locks, also after a panic of another thread.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(to: &[Shared], bytes: &[u8]) -> Result<()> {
    if !bytes.is_empty() {
        for stream in to {
            lock(stream).write_all(bytes)?;
        }
    }
    Ok(())
}

fn accept(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> Result<()> + Send + Clone + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            let _ = stream.set_nodelay(true);
            // The end of a connection is not an error.
            std::thread::spawn(move || serve(stream));
        }
    })
}

/// Reads and answers until the stream ends; `frames` appends answers and returns the bytes consumed.
fn pump(
    mut stream: TcpStream,
    back: &Shared,
    mut frames: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize>,
) -> Result<()> {
    let mut input = vec![0; 1 << 20];
    let mut output = Vec::new();
    let mut end = 0;
    loop {
        let count = stream.read(input.get_mut(end..).unwrap_or_default())?;
        if count == 0 {
            return Ok(());
        }
        end += count;
        let taken = frames(input.get(..end).unwrap_or_default(), &mut output)?;
        input.copy_within(taken..end, 0);
        end -= taken;
        send(std::slice::from_ref(back), &output)?;
        output.clear();
    }
}
