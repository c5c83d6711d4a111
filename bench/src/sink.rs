//! Something that answers a work's messages with as little as can be done: the load generators' own ceiling.
//!
//! It walks frames by their lengths and knows one publish and one subscription at a time. What a generator
//! reaches against it, on the other core, is what it could ask of a broker that costs nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::broker::{Broker, Contestant, Places};
use crate::compare::Settings;
use crate::load::Fields;
use crate::report::number;
use crate::works::{Kind, WORKS, Work};

/// Works that the sink can answer.
fn answers(work: &Work) -> bool {
    match work.kind {
        Kind::KafkaProduce { producers, .. } => producers == 1,
        Kind::MqttStream { qos, topics, subscribers, publishers, .. } => {
            qos < 2 && topics == 1 && subscribers == 1 && publishers == 1
        }
        Kind::AmqpStream { queues, .. } => queues == 1,
        _ => false,
    }
}

/// Plays the works against the sink and shows what the generators reached.
pub(crate) fn measure(names: &[String], settings: &Settings, places: &Places) -> Result<()> {
    println!("{:<7} {:>12}   load core busy   (generator against a sink)", "work", "messages/s");
    for work in WORKS.iter().filter(|work| answers(work)) {
        if !names.is_empty() && !names.iter().any(|name| name.eq_ignore_ascii_case(work.id)) {
            continue;
        }
        let mut sink = Broker::start(Contestant::Sink, places)?;
        let figures = work.run(&mut sink, settings.lengths)?;
        let value = |name: &str| figures.get(name).copied().unwrap_or(0.0);
        println!("{:<7} {:>12}   {:.2}", work.id, number(value("per_s")), value("load_core_share"));
    }
    Ok(())
}

/// Serves Kafka, MQTT and AMQP on three ports, until it is killed.
pub(crate) fn serve(port: u16) -> Result<()> {
    let listen = |port: u16| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let (kafka_port, mqtt_port, amqp_port) = (listen(port)?, listen(port + 1)?, listen(port + 2)?);
    let mqtt_to: Receiver = Arc::default();
    let amqp_to: Receiver = Arc::default();
    accept(mqtt_port, move |stream| mqtt(stream, &mqtt_to));
    accept(amqp_port, move |stream| amqp(stream, &amqp_to));
    accept(kafka_port, kafka).join().map_err(|_| anyhow::anyhow!("the sink's thread ended"))
}

/// Who subscribed last.
type Receiver = Arc<Mutex<Option<TcpStream>>>;

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

/// Reads frames, as many as come at once; `frames` returns the bytes that it took.
fn pump(mut stream: TcpStream, mut frames: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize>) -> Result<()> {
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
        stream.write_all(&output)?;
        output.clear();
    }
}

fn send(to: &Receiver, bytes: &[u8]) -> Result<()> {
    if let Some(stream) = to.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        stream.write_all(bytes)?;
    }
    Ok(())
}

fn kafka(stream: TcpStream) -> Result<()> {
    pump(stream, |input, output| {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..) {
            let Some(size) = rest.get(..4) else { break };
            let Some(frame) = rest.get(4..4 + Fields(size).i32() as usize) else { break };
            taken += 4 + frame.len();
            let mut fields = Fields(frame);
            let (key, _version, correlation) = (fields.i16(), fields.i16(), fields.i32());
            fields.string();
            let mut answer = correlation.to_be_bytes().to_vec();
            match key {
                // Produce: one topic, one partition, no error.
                0 => {
                    fields.take(8);
                    fields.i32();
                    let topic = fields.string();
                    answer.extend_from_slice(&1_i32.to_be_bytes());
                    answer.extend_from_slice(&(topic.len() as i16).to_be_bytes());
                    answer.extend_from_slice(topic);
                    answer.extend_from_slice(&1_i32.to_be_bytes());
                    answer.extend_from_slice(&[0; 4 + 2 + 24 + 4]);
                }
                // CreateTopics, DeleteTopics: no error.
                19 => answer.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0xff, 0xff]),
                20 => answer.extend_from_slice(&[0; 8]),
                // Metadata: no brokers; one topic with one partition, led by 0.
                3 => {
                    answer.extend_from_slice(&[0; 4 + 4 + 2 + 4]);
                    answer.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, b't', 0]);
                    answer.extend_from_slice(&[0, 0, 0, 1]);
                    answer.extend_from_slice(&[0; 2 + 4 + 4 + 4 + 4]);
                }
                // ListOffsets: one partition.
                _ => {
                    answer.extend_from_slice(&[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1]);
                    answer.extend_from_slice(&[0; 4 + 2 + 16]);
                }
            }
            output.extend_from_slice(&(answer.len() as u32).to_be_bytes());
            output.extend_from_slice(&answer);
        }
        Ok(taken)
    })
}

fn mqtt(stream: TcpStream, to: &Receiver) -> Result<()> {
    let own = stream.try_clone()?;
    pump(stream, move |input, output| {
        let mut taken = 0;
        let mut publishes = (usize::MAX, 0);
        while let Some(rest) = input.get(taken..) {
            // Lengths of two bytes at most.
            let length = match rest {
                [_, low, ..] if *low < 0x80 => 2 + usize::from(*low),
                [_, low, high, ..] => 3 + usize::from(low & 0x7f) + (usize::from(*high) << 7),
                _ => break,
            };
            let Some(packet) = rest.get(..length) else { break };
            match packet.first().map_or(0, |first| first >> 4) {
                1 => output.extend_from_slice(&[0x20, 2, 0, 0]),
                8 => {
                    *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(own.try_clone()?);
                    output.extend_from_slice(&[0x90, 3, 0, 1, 0]);
                }
                3 => {
                    publishes = (publishes.0.min(taken), taken + length);
                    if packet.first().is_some_and(|first| first & 6 == 2) {
                        let mut fields = Fields(packet.get(2..).unwrap_or_default());
                        fields.string();
                        output.extend_from_slice(&[0x40, 2, fields.u8(), fields.u8()]);
                    }
                }
                _ => {}
            }
            taken += length;
        }
        send(to, input.get(publishes.0..publishes.1).unwrap_or_default())?;
        Ok(taken)
    })
}

fn amqp(stream: TcpStream, to: &Receiver) -> Result<()> {
    let own = stream.try_clone()?;
    let method = |class: u16, method: u16, arguments: &[u8], channel: u8| {
        let mut frame = vec![1, 0, channel, 0, 0, 0, 4 + arguments.len() as u8];
        frame.extend_from_slice(&class.to_be_bytes());
        frame.extend_from_slice(&method.to_be_bytes());
        frame.extend_from_slice(arguments);
        frame.push(0xce);
        frame
    };
    let (mut delivered, mut confirming) = (0_u64, false);
    pump(stream, move |input, output| {
        let mut taken = 0;
        let mut deliveries = Vec::new();
        if input.starts_with(b"AMQP") {
            taken = 8;
            output.extend(method(10, 10, &[0; 10], 0));
        }
        let before = delivered;
        while let Some(rest) = input.get(taken..) {
            let Some(size) = rest.get(3..7) else { break };
            let Some(frame) = rest.get(..Fields(size).i32() as usize + 8) else { break };
            taken += frame.len();
            let mut fields = Fields(frame.get(7..).unwrap_or_default());
            if frame.first() != Some(&1) {
                deliveries.extend_from_slice(frame);
                continue;
            }
            match (fields.u16(), fields.u16()) {
                (10, 11) => output.extend(method(10, 30, &[0; 8], 0)),
                (10, 40) => output.extend(method(10, 41, &[0], 0)),
                (20, 10) => output.extend(method(20, 11, &[0; 4], 1)),
                (50, 10) => output.extend(method(50, 11, &[0; 9], 1)),
                (50, 40) => output.extend(method(50, 41, &[0; 4], 1)),
                (85, 10) => {
                    confirming = true;
                    output.extend(method(85, 11, &[], 1));
                }
                (60, 10) => output.extend(method(60, 11, &[], 1)),
                (60, 20) => {
                    *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(own.try_clone()?);
                    output.extend(method(60, 21, &[1, b'c'], 1));
                }
                (60, 40) => {
                    delivered += 1;
                    let mut arguments = vec![1, b'c'];
                    arguments.extend_from_slice(&delivered.to_be_bytes());
                    arguments.extend_from_slice(&[0, 0, 1, b'q']);
                    deliveries.extend(method(60, 60, &arguments, 1));
                }
                _ => {}
            }
        }
        if confirming && delivered > before {
            let mut arguments = delivered.to_be_bytes().to_vec();
            arguments.push(1);
            output.extend(method(60, 80, &arguments, 1));
        }
        send(to, &deliveries)?;
        Ok(taken)
    })
}
