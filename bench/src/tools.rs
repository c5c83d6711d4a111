//! The peers' own load tools against Inver and the peer: what a user would try first.
//!
//! The broker's use is taken over the whole run of the tool, its start included.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::broker::Broker;
use crate::contest::{self, Settings};
use crate::contestant::Contestant;
use crate::load::kafka;
use crate::places::Places;
use crate::report::number;
use crate::results::{Figures, Results};
use crate::usage;
use crate::works::Field;

/// A guess of how long a run of a tool takes.
const TOOL_TIME: Duration = Duration::from_secs(6);

/// A run of a tool.
struct Tool {
    title: &'static str,
    field: Field,
    script: &'static str,
    /// What its topic or queue is called, and how many partitions a topic has.
    topic: &'static str,
    partitions: i32,
    arguments: fn(&Broker, &str, u64) -> Vec<String>,
    /// Messages that a run of some seconds is given.
    messages: u64,
    parse: fn(&str, u64) -> Option<Figures>,
}

const TOOLS: [Tool; 7] = [
    Tool {
        title: "ProducerPerformance, 100 B, acks=all",
        field: Field::Kafka,
        script: "kafka",
        topic: "small",
        partitions: 1,
        arguments: |broker, topic, count| producer(broker, topic, count, 100),
        messages: 1_500_000,
        parse: producer_said,
    },
    Tool {
        title: "ConsumerPerformance, 100 B",
        field: Field::Kafka,
        script: "kafka",
        topic: "small",
        partitions: 1,
        arguments: consumer,
        messages: 1_500_000,
        parse: consumer_said,
    },
    Tool {
        title: "ProducerPerformance, 1 KB, acks=all",
        field: Field::Kafka,
        script: "kafka",
        topic: "large",
        partitions: 1,
        arguments: |broker, topic, count| producer(broker, topic, count, 1000),
        messages: 200_000,
        parse: producer_said,
    },
    Tool {
        title: "ProducerPerformance, 100 B over 1,000 partitions, acks=all",
        field: Field::Kafka,
        script: "kafka",
        topic: "many",
        partitions: 1000,
        arguments: |broker, topic, count| producer(broker, topic, count, 100),
        messages: 150_000,
        parse: producer_said,
    },
    Tool {
        title: "EndToEndLatency, 100 B, acks=all",
        field: Field::Kafka,
        script: "kafka",
        topic: "e2e",
        partitions: 1,
        arguments: |broker, topic, count| {
            let count = count.to_string();
            let address = broker.kafka.to_string();
            words(&["tool", "org.apache.kafka.tools.EndToEndLatency", &address, topic, &count, "all", "100"])
        },
        messages: 2_500,
        parse: latency_said,
    },
    Tool {
        title: "PerfTest, 16 B transient, automatic ack",
        field: Field::Amqp,
        script: "rabbitmq",
        topic: "transient",
        partitions: 0,
        arguments: |broker, queue, seconds| perftest(broker, queue, seconds, &["-s", "16", "-a"]),
        messages: 4,
        parse: perftest_said,
    },
    Tool {
        title: "PerfTest, 1 KB persistent, confirms 100, prefetch 100",
        field: Field::Amqp,
        script: "rabbitmq",
        topic: "persistent",
        partitions: 0,
        arguments: |broker, queue, seconds| {
            perftest(broker, queue, seconds, &["-s", "1024", "-f", "persistent", "-c", "100", "-q", "100"])
        },
        messages: 4,
        parse: perftest_said,
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

/// Reads what the producer before it wrote.
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

fn producer_said(said: &str, count: u64) -> Option<Figures> {
    let line = said.lines().rev().find(|line| line.contains("99.9th"))?;
    let per_s = number_after(line, "records sent,")?;
    Some(Figures::from([("per_s".into(), per_s), ("messages".into(), count as f64)]))
}

fn consumer_said(said: &str, count: u64) -> Option<Figures> {
    let line =
        said.lines().rev().find(|line| line.matches(',').count() >= 8 && !line.contains("start.time"))?;
    let per_s = line.split(',').nth(9)?.trim().parse().ok()?;
    Some(Figures::from([("per_s".into(), per_s), ("messages".into(), count as f64)]))
}

fn latency_said(said: &str, count: u64) -> Option<Figures> {
    let milliseconds = |mark: &str| number_after(said, mark).map(|ms| ms * 1e3);
    let average_ms = number_after(said, "Avg latency:")?;
    Some(Figures::from([
        ("per_s".into(), 1e3 / average_ms),
        ("messages".into(), count as f64),
        ("p50_us".into(), milliseconds("50th")?),
        ("p99_us".into(), milliseconds("99th")?),
        ("p999_us".into(), milliseconds("99.9th")?),
    ]))
}

fn perftest_said(said: &str, seconds: u64) -> Option<Figures> {
    let per_s = number_after(said, "receiving rate avg:")?;
    Some(Figures::from([("per_s".into(), per_s), ("messages".into(), per_s * seconds as f64)]))
}

fn ask(tool: &Tool, broker: &Broker, topic: &str, places: &Places) -> Result<Figures> {
    let before = usage::of(&broker.pids());
    let mut command: Command = places.script(tool.script);
    command.args((tool.arguments)(broker, topic, tool.messages));
    let output = command.output()?;
    let used = usage::of(&broker.pids()) - before;
    let said = String::from_utf8_lossy(&output.stdout);
    let parsed = (tool.parse)(&said, tool.messages);
    let complaint = || format!("{}\n{}", said.trim(), String::from_utf8_lossy(&output.stderr).trim());
    let mut figures = parsed.with_context(complaint)?;
    ensure!(output.status.success(), "{}", complaint());
    let messages = figures.remove("messages").unwrap_or(1.0);
    figures.insert("cpu_s_per_million".into(), used.cpu_s() * 1e6 / messages);
    Ok(figures)
}

pub(crate) fn are_there(field: Field) -> bool {
    TOOLS.iter().any(|tool| tool.field == field)
}

/// A guess of how long the tools of a field take.
pub(crate) fn planned(field: Field, settings: &Settings) -> Duration {
    let tools = TOOLS.iter().filter(|tool| tool.field == field).count() as u32;
    let contestants = field.contestants().iter().filter(|contestant| settings.takes(**contestant)).count();
    let rounds = (settings.rounds * contestants + 1) as u32;
    TOOL_TIME * tools * rounds
}

/// Starts the contestants of a field and runs its tools.
pub(crate) fn run(field: Field, settings: &Settings, places: &Places, results: &mut Results) -> Result<()> {
    let mut brokers = contest::start(field, settings, places, results);
    play(field, &mut brokers, settings, places, results)
}

/// Runs the tools of a field, each contestant in turn. What a round said is kept when it is over.
pub(crate) fn play(
    field: Field,
    brokers: &mut [Broker],
    settings: &Settings,
    places: &Places,
    results: &mut Results,
) -> Result<()> {
    let tools: Vec<&Tool> = TOOLS.iter().filter(|tool| tool.field == field).collect();
    if tools.is_empty() {
        return Ok(());
    }
    let mut said = BTreeMap::<(&str, Contestant), Vec<Figures>>::new();
    for round in 0..=settings.rounds {
        for broker in brokers.iter_mut() {
            let contestant = broker.contestant;
            if round == 0 && contestant.is_inver() {
                // Only what has to be warmed up is.
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
                match ready.and_then(|()| ask(tool, broker, &topic, places)) {
                    Ok(figures) => {
                        let value = |name: &str| number(figures.get(name).copied().unwrap_or(f64::NAN));
                        let (per_s, cpu) = (value("per_s"), value("cpu_s_per_million"));
                        eprintln!(
                            "  {round} {:<18} {}: {per_s}/s, CPU a million {cpu} s",
                            contestant.title(),
                            tool.title
                        );
                        if round > 0 {
                            said.entry((tool.title, contestant)).or_default().push(figures);
                        }
                    }
                    Err(error) => {
                        results.trouble(format!("{} against {contestant}: {error:#}", tool.title));
                        if broker.has_ended() {
                            broker.renew(places)?;
                        }
                    }
                }
            }
            for topic in topics {
                // Its files are not written out in the time of the next.
                let deleted = kafka::delete_topic(broker.kafka, &topic);
                deleted.unwrap_or_else(|error| results.trouble(format!("deleting {topic}: {error:#}")));
            }
        }
        for ((title, contestant), runs) in &said {
            let entry = results.tools.entry((*title).to_owned()).or_default();
            entry.insert(*contestant, runs.clone());
        }
        crate::report::save(results, &places.root)?;
    }
    Ok(())
}
