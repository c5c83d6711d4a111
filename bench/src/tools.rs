//! The peers' own load tools against Inver and the peer, as a user would try them first.
//!
//! The broker's usage covers the whole run of the tool, with its start.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::broker::Broker;
use crate::broker_kind::BrokerKind;
use crate::load::kafka;
use crate::paths::Paths;
use crate::report::number;
use crate::results::{Figures, Results};
use crate::setup::{self, Settings};
use crate::usage;
use crate::workloads::Protocol;

/// Estimated duration of one run of a tool.
const TOOL_TIME: Duration = Duration::from_secs(6);

/// A load tool with its arguments.
struct Tool {
    title: &'static str,
    protocol: Protocol,
    script: &'static str,
    /// Name of its topic or queue, and partitions of the topic.
    topic: &'static str,
    partitions: i32,
    arguments: fn(&Broker, &str, u64) -> Vec<String>,
    /// Messages for a run of some seconds; seconds, for tools that run for a time.
    messages: u64,
    parse: fn(&str, u64) -> Option<Figures>,
}

const TOOLS: [Tool; 7] = [
    Tool {
        title: "ProducerPerformance, 100 B, acks=all",
        protocol: Protocol::Kafka,
        script: "kafka",
        topic: "small",
        partitions: 1,
        arguments: |broker, topic, count| producer(broker, topic, count, 100),
        messages: 1_500_000,
        parse: parse_producer,
    },
    Tool {
        title: "ConsumerPerformance, 100 B",
        protocol: Protocol::Kafka,
        script: "kafka",
        topic: "small",
        partitions: 1,
        arguments: consumer,
        messages: 1_500_000,
        parse: parse_consumer,
    },
    Tool {
        title: "ProducerPerformance, 1 KB, acks=all",
        protocol: Protocol::Kafka,
        script: "kafka",
        topic: "large",
        partitions: 1,
        arguments: |broker, topic, count| producer(broker, topic, count, 1000),
        messages: 200_000,
        parse: parse_producer,
    },
    Tool {
        title: "ProducerPerformance, 100 B over 1,000 partitions, acks=all",
        protocol: Protocol::Kafka,
        script: "kafka",
        topic: "many",
        partitions: 1000,
        arguments: |broker, topic, count| producer(broker, topic, count, 100),
        messages: 150_000,
        parse: parse_producer,
    },
    Tool {
        title: "EndToEndLatency, 100 B, acks=all",
        protocol: Protocol::Kafka,
        script: "kafka",
        topic: "e2e",
        partitions: 1,
        arguments: |broker, topic, count| {
            let count = count.to_string();
            let address = broker.kafka.to_string();
            words(&["tool", "org.apache.kafka.tools.EndToEndLatency", &address, topic, &count, "all", "100"])
        },
        messages: 2_500,
        parse: parse_latency,
    },
    Tool {
        title: "PerfTest, 16 B transient, automatic ack",
        protocol: Protocol::Amqp,
        script: "rabbitmq",
        topic: "transient",
        partitions: 0,
        arguments: |broker, queue, seconds| perftest(broker, queue, seconds, &["-s", "16", "-a"]),
        messages: 4,
        parse: parse_perftest,
    },
    Tool {
        title: "PerfTest, 1 KB persistent, confirms 100, prefetch 100",
        protocol: Protocol::Amqp,
        script: "rabbitmq",
        topic: "persistent",
        partitions: 0,
        arguments: |broker, queue, seconds| {
            perftest(broker, queue, seconds, &["-s", "1024", "-f", "persistent", "-c", "100", "-q", "100"])
        },
        messages: 4,
        parse: parse_perftest,
    },
];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn producer(broker: &Broker, topic: &str, count: u64, size: usize) -> Vec<String> {
    let (address, count, size) = (broker.kafka.to_string(), count.to_string(), size.to_string());
    let mut arguments = words(&["tool", "org.apache.kafka.tools.ProducerPerformance", "--topic", topic]);
    arguments.extend(words(&["--num-records", &count, "--record-size", &size, "--throughput", "-1"]));
    arguments.extend(words(&["--bootstrap-server", &address, "--command-property", "acks=all"]));
    arguments
}

/// Consumes what the producer before it wrote.
fn consumer(broker: &Broker, topic: &str, count: u64) -> Vec<String> {
    let (address, count) = (broker.kafka.to_string(), count.to_string());
    let mut arguments = words(&["tool", "org.apache.kafka.tools.ConsumerPerformance", "--topic", topic]);
    arguments.extend(words(&["--num-records", &count, "--bootstrap-server", &address, "--timeout", "30000"]));
    arguments
}

fn perftest(broker: &Broker, queue: &str, seconds: u64, more: &[&str]) -> Vec<String> {
    let (address, seconds) = (format!("amqp://guest:guest@{}", broker.amqp), seconds.to_string());
    let mut arguments =
        words(&["perftest", "-h", &address, "-z", &seconds, "-x", "1", "-y", "1", "-u", queue]);
    arguments.extend(words(more));
    arguments
}

/// The first number after `mark`.
fn number_after(text: &str, mark: &str) -> Option<f64> {
    let rest = text.get(text.rfind(mark)? + mark.len()..)?;
    let rest = rest.trim_start_matches([' ', ':', '=', ',']);
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

fn parse_producer(text: &str, count: u64) -> Option<Figures> {
    let line = text.lines().rev().find(|line| line.contains("99.9th"))?;
    let per_s = number_after(line, "records sent,")?;
    Some(Figures::from([("per_s".into(), per_s), ("messages".into(), count as f64)]))
}

fn parse_consumer(text: &str, count: u64) -> Option<Figures> {
    let line =
        text.lines().rev().find(|line| line.matches(',').count() >= 8 && !line.contains("start.time"))?;
    let per_s = line.split(',').nth(9)?.trim().parse().ok()?;
    Some(Figures::from([("per_s".into(), per_s), ("messages".into(), count as f64)]))
}

fn parse_latency(text: &str, count: u64) -> Option<Figures> {
    let milliseconds = |mark: &str| number_after(text, mark).map(|ms| ms * 1e3);
    let average_ms = number_after(text, "Avg latency:")?;
    Some(Figures::from([
        ("per_s".into(), 1e3 / average_ms),
        ("messages".into(), count as f64),
        ("p50_us".into(), milliseconds("50th")?),
        ("p99_us".into(), milliseconds("99th")?),
        ("p999_us".into(), milliseconds("99.9th")?),
    ]))
}

fn parse_perftest(text: &str, seconds: u64) -> Option<Figures> {
    let per_s = number_after(text, "receiving rate avg:")?;
    Some(Figures::from([("per_s".into(), per_s), ("messages".into(), per_s * seconds as f64)]))
}

fn run_tool(tool: &Tool, broker: &Broker, topic: &str, paths: &Paths) -> Result<Figures> {
    let before = usage::of(&broker.pids());
    let mut command: Command = paths.script(tool.script);
    command.args((tool.arguments)(broker, topic, tool.messages));
    let output = command.output()?;
    let used = usage::of(&broker.pids()) - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let parsed = (tool.parse)(&text, tool.messages);
    let details = || format!("{}\n{}", text.trim(), String::from_utf8_lossy(&output.stderr).trim());
    let mut figures = parsed.with_context(details)?;
    ensure!(output.status.success(), "{}", details());
    let messages = figures.remove("messages").unwrap_or(1.0);
    figures.insert("cpu_s_per_million".into(), used.cpu_s() * 1e6 / messages);
    Ok(figures)
}

pub(crate) fn exist(protocol: Protocol) -> bool {
    TOOLS.iter().any(|tool| tool.protocol == protocol)
}

/// Estimated duration of the tools of a protocol.
pub(crate) fn planned(protocol: Protocol, settings: &Settings) -> Duration {
    let tools = TOOLS.iter().filter(|tool| tool.protocol == protocol).count() as u32;
    let kinds = protocol.brokers().iter().filter(|kind| settings.includes(**kind)).count();
    let rounds = (settings.rounds * kinds + 1) as u32;
    TOOL_TIME * tools * rounds
}

/// Starts the brokers of a protocol and runs its tools.
pub(crate) fn run(
    protocol: Protocol,
    settings: &Settings,
    paths: &Paths,
    results: &mut Results,
) -> Result<()> {
    let mut brokers = setup::start(protocol, settings, paths, results);
    run_on(protocol, &mut brokers, settings, paths, results)
}

/// Runs the tools of a protocol on each broker in turn. A round is saved when it is complete.
pub(crate) fn run_on(
    protocol: Protocol,
    brokers: &mut [Broker],
    settings: &Settings,
    paths: &Paths,
    results: &mut Results,
) -> Result<()> {
    let tools: Vec<&Tool> = TOOLS.iter().filter(|tool| tool.protocol == protocol).collect();
    if tools.is_empty() {
        return Ok(());
    }
    let mut figures_of = BTreeMap::<(&str, BrokerKind), Vec<Figures>>::new();
    for round in 0..=settings.rounds {
        for broker in brokers.iter_mut() {
            let kind = broker.kind;
            if round == 0 && kind.is_inver() {
                // Inver needs no warm-up round.
                continue;
            }
            let mut topics = BTreeSet::new();
            for tool in &tools {
                let topic = format!("tool-{}-{round}-{}", std::process::id(), tool.topic);
                let ready = if tool.partitions > 0 && topics.insert(topic.clone()) {
                    kafka::create_topic(broker.kafka, &topic, tool.partitions)
                } else {
                    Ok(())
                };
                rustix::fs::sync();
                match ready.and_then(|()| run_tool(tool, broker, &topic, paths)) {
                    Ok(figures) => {
                        let value = |name: &str| number(figures.get(name).copied().unwrap_or(f64::NAN));
                        let (per_s, cpu) = (value("per_s"), value("cpu_s_per_million"));
                        eprintln!(
                            "  {round} {:<18} {}: {per_s}/s, CPU per million {cpu} s",
                            kind.title(),
                            tool.title
                        );
                        if round > 0 {
                            figures_of.entry((tool.title, kind)).or_default().push(figures);
                        }
                    }
                    Err(error) => {
                        results.problem(format!("{} against {kind}: {error:#}", tool.title));
                        if broker.has_ended() {
                            broker.replace(paths)?;
                        }
                    }
                }
            }
            for topic in topics {
                // The next broker must not pay for writing the files of these.
                let deleted = kafka::delete_topic(broker.kafka, &topic);
                deleted.unwrap_or_else(|error| results.problem(format!("deleting {topic}: {error:#}")));
            }
        }
        for ((title, kind), runs) in &figures_of {
            let entry = results.tools.entry((*title).to_owned()).or_default();
            entry.insert(*kind, runs.clone());
        }
        crate::report::save(results, &paths.root)?;
    }
    Ok(())
}
