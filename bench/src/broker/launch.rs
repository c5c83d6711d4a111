//! What is run for a contestant: its ports, its command line and what it is told, Inver by its environment and a
//! peer by its script.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Broker;
use crate::bridge::{CAPTURE_PARTITIONS, CAPTURE_TOPIC};
use crate::contestant::Contestant;
use crate::load::kafka;
use crate::places::Places;

/// Ports below those that the kernel gives to connections: thousands of these may just have ended.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port with the next three free as well.
pub(super) fn free_ports() -> Result<u16> {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let from = PORTS.start + (std::process::id() % 2_000) as u16 * 4;
    (from..PORTS.end)
        .chain(PORTS.start..from)
        .step_by(4)
        .find(|port| (0..4).all(|next| free(port + next)))
        .context("no free ports")
}

/// An address of this machine.
pub(super) fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// What starts a contestant, and its version. `with` are those that it stands between.
pub(super) fn command(
    contestant: Contestant,
    port: u16,
    data: &Path,
    with: &[Broker],
    places: &Places,
) -> Result<(Command, String)> {
    let core = match contestant {
        // These are compared by how they use all of them.
        Contestant::InverPerCore | Contestant::InverMultiThread => places.on_every_core().cores,
        _ => places.cores.clone(),
    };
    // A broker ends with the bench, however that ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "-c", &core]);
    let version = match contestant {
        Contestant::Kafka => peer(&mut command, "kafka", port, data, places)?,
        Contestant::Rabbitmq => peer(&mut command, "rabbitmq", port, data, places)?,
        Contestant::Mosquitto => peer(&mut command, "mosquitto", port, data, places)?,
        Contestant::Bridged => {
            let [mosquitto, kafka] = with else { bail!("Mosquitto and Kafka are wanted") };
            kafka::create_topic(kafka.kafka, CAPTURE_TOPIC, CAPTURE_PARTITIONS)?;
            command.arg(std::env::current_exe()?).arg("bridge");
            command.arg(mosquitto.mqtt.to_string()).arg(kafka.kafka.to_string());
            format!("{}; {}", mosquitto.version, kafka.version)
        }
        Contestant::Sink => {
            command.arg(std::env::current_exe()?).args(["sink-serve", &port.to_string()]);
            "sink".into()
        }
        Contestant::InverOs
        | Contestant::InverAlways
        | Contestant::InverPerCore
        | Contestant::InverMultiThread => {
            command.envs(contestant.variables().iter().copied());
            inver(&mut command, port, data, places)?
        }
    };
    Ok((command, version))
}

fn inver(command: &mut Command, port: u16, data: &Path, places: &Places) -> Result<String> {
    command
        .arg(&places.inver)
        .arg("serve")
        .env("INVER_DATA_DIR", data.join("data"))
        .env("INVER_KAFKA_LISTEN", at(port).to_string())
        .env("INVER_MQTT_LISTEN", at(port + 1).to_string())
        .env("INVER_AMQP_LISTEN", at(port + 2).to_string())
        .env("INVER_HTTP_LISTEN", at(port + 3).to_string())
        .env("INVER_MQTT_WEBSOCKET_LISTEN", "off")
        .env("INVER_LOGGING_FILTER", "warn");
    let output = Command::new(&places.inver).arg("--version").output();
    let output = output.with_context(|| format!("{}", places.inver.display()))?;
    Ok(said(&output.stdout))
}

fn peer(command: &mut Command, name: &str, port: u16, data: &Path, places: &Places) -> Result<String> {
    let path = places.root.join("bench/peers").join(name);
    let status = places.script(name).arg("get").status().with_context(|| path.display().to_string())?;
    ensure!(status.success(), "{} get failed", path.display());
    let version = said(&places.script(name).arg("version").output()?.stdout);
    if name == "kafka" {
        // What is done once to a new folder is no part of a start.
        let output = places.script(name).arg("prepare").arg(port.to_string()).arg(data).output()?;
        ensure!(output.status.success(), "{}", said(&output.stderr));
    }
    command.arg(path).arg("run").arg(port.to_string()).arg(data).env("PEERS", &places.peers);
    command.env("NODELAY", places.for_latency.to_string());
    command.env("ERLANG_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none");
    Ok(version)
}

fn said(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().to_owned()
}
