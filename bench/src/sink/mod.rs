//! Something that answers a work's messages with as little as can be done: the load generators' own ceiling.
//!
//! It walks frames by their lengths, checks nothing, and takes for granted what the works keep to: a connection
//! publishes to one topic, exchange or queue. What a generator reaches against it, on the other core, is what it
//! could ask of a broker that costs next to nothing.

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
use crate::contest::Settings;
use crate::contestant::Contestant;
use crate::places::Places;
use crate::progress::Progress;
use crate::report::table;
use crate::results::Results;
use crate::works::{Field, Kind, WORKS, Work};

/// A guess of what a run takes beside its window.
const START_TIME: Duration = Duration::from_millis(500);

/// Works that the sink can answer: not those that convert, that keep more than memory holds, or in which the broker is only there.
fn answers(work: &Work) -> bool {
    let is_left_out = matches!(
        work.kind,
        Kind::AmqpToMqtt
            | Kind::KafkaToAmqp { .. }
            | Kind::KafkaBacklog { .. }
            | Kind::MqttSubscriptions { .. }
            | Kind::MqttIdle { .. }
            | Kind::Scale { .. }
            | Kind::Start
    );
    work.field != Field::Runtime && !is_left_out
}

/// Plays the works against the sink and shows what the generators reached.
pub(crate) fn measure(
    names: &[String],
    settings: &Settings,
    places: &Places,
    progress: &mut Progress,
    results: &mut Results,
) -> Result<()> {
    for work in played(names) {
        progress.begin(&format!("sink: {}", work.id));
        let run = Broker::start(Contestant::Sink, places)
            .and_then(|mut sink| work.run(&mut sink, settings.lengths));
        match run {
            Ok(figures) => {
                println!("{:<7} {}", work.id, table::brief(&figures));
                results.sink.insert(work.id.to_owned(), figures);
            }
            Err(error) => results.trouble(format!("{} of the sink: {error:#}", work.id)),
        }
        crate::report::save(results, &places.root)?;
        progress.end(planned_each(settings));
    }
    Ok(())
}

/// Those of these names, or all.
fn played(names: &[String]) -> impl Iterator<Item = &'static Work> {
    let named = |work: &Work| names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(work.id));
    WORKS.iter().filter(move |work| answers(work) && named(work))
}

/// A guess of how long all of them take.
pub(crate) fn planned(settings: &Settings, names: &[String]) -> Duration {
    planned_each(settings) * played(names).count() as u32
}

fn planned_each(settings: &Settings) -> Duration {
    settings.lengths.warmup + settings.lengths.window + START_TIME
}

/// Serves Kafka, MQTT and AMQP on three ports, until it is killed.
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
        .map_err(|_| anyhow::anyhow!("the sink's thread ended"))
}

/// A connection that several threads write to, whole frames each.
type Shared = Arc<Mutex<TcpStream>>;

/// Things by name that all connections share.
type Named<T> = Mutex<HashMap<Vec<u8>, T>>;

/// A lock that a thread which ended does not spoil.
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
            // A connection that ends is no error here.
            std::thread::spawn(move || serve(stream));
        }
    })
}

/// Reads frames, as many as come at once; `frames` returns the bytes that it took, and puts its answers.
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
