//! The command of a broker: ports, command line and settings; Inver's by environment variables, a peer's by its script.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Broker;
use crate::bridge::{CAPTURE_PARTITIONS, CAPTURE_TOPIC};
use crate::broker_kind::BrokerKind;
use crate::load::kafka;
use crate::paths::Paths;

/// Ports below the kernel's ephemeral range: thousands of connections may just have used that.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port whose next three are free as well.
pub(super) fn free_ports() -> Result<u16> {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let from = PORTS.start + (std::process::id() % 2_000) as u16 * 4;
    (from..PORTS.end)
        .chain(PORTS.start..from)
        .step_by(4)
        .find(|port| (0..4).all(|next| free(port + next)))
        .context("no free ports")
}

/// An address on the loopback interface.
pub(super) fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The command that starts a broker, and its version. `dependencies`: the brokers that it connects.
pub(super) fn command(
    kind: BrokerKind,
    port: u16,
    data: &Path,
    dependencies: &[Broker],
    paths: &Paths,
) -> Result<(Command, String)> {
    let core = match kind {
        // These are compared by their use of all cores.
        BrokerKind::InverPerCore | BrokerKind::InverMultiThread => paths.on_every_core().cores,
        _ => paths.cores.clone(),
    };
    // The broker ends with the bench, even if that is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "-c", &core]);
    let version = match kind {
        BrokerKind::Kafka => peer(&mut command, "kafka", port, data, paths)?,
        BrokerKind::Rabbitmq => peer(&mut command, "rabbitmq", port, data, paths)?,
        BrokerKind::Mosquitto => peer(&mut command, "mosquitto", port, data, paths)?,
        BrokerKind::Bridged => {
            let [mosquitto, kafka] = dependencies else { bail!("the bridge needs Mosquitto and Kafka") };
            kafka::create_topic(kafka.kafka, CAPTURE_TOPIC, CAPTURE_PARTITIONS)?;
            command.arg(std::env::current_exe()?).arg("bridge");
            command.arg(mosquitto.mqtt.to_string()).arg(kafka.kafka.to_string());
            format!("{}; {}", mosquitto.version, kafka.version)
        }
        BrokerKind::Sink => {
            command.arg(std::env::current_exe()?).args(["sink-serve", &port.to_string()]);
            "sink".into()
        }
        BrokerKind::InverOs
        | BrokerKind::InverAlways
        | BrokerKind::InverPerCore
        | BrokerKind::InverMultiThread => {
            command.envs(kind.variables().iter().copied());
            inver(&mut command, port, data, paths)?
        }
    };
    Ok((command, version))
}

fn inver(command: &mut Command, port: u16, data: &Path, paths: &Paths) -> Result<String> {
    command
        .arg(&paths.inver)
        .arg("serve")
        .env("INVER_DATA_DIR", data.join("data"))
        .env("INVER_KAFKA_LISTEN", at(port).to_string())
        .env("INVER_MQTT_LISTEN", at(port + 1).to_string())
        .env("INVER_AMQP_LISTEN", at(port + 2).to_string())
        .env("INVER_HTTP_LISTEN", at(port + 3).to_string())
        .env("INVER_STREAM_LISTEN", "off")
        .env("INVER_MQTT_WEBSOCKET_LISTEN", "off")
        .env("INVER_LOGGING_FILTER", "warn");
    let output = Command::new(&paths.inver).arg("--version").output();
    let output = output.with_context(|| format!("{}", paths.inver.display()))?;
    Ok(text(&output.stdout))
}

fn peer(command: &mut Command, name: &str, port: u16, data: &Path, paths: &Paths) -> Result<String> {
    let path = paths.root.join("bench/peers").join(name);
    let status = paths.script(name).arg("get").status().with_context(|| path.display().to_string())?;
    ensure!(status.success(), "{} get failed", path.display());
    let version = text(&paths.script(name).arg("version").output()?.stdout);
    if name == "kafka" {
        // Formatting a new folder is not part of a start.
        let output = paths.script(name).arg("prepare").arg(port.to_string()).arg(data).output()?;
        ensure!(output.status.success(), "{}", text(&output.stderr));
    }
    command.arg(path).arg("run").arg(port.to_string()).arg(data).env("PEERS", &paths.peers);
    command.env("NODELAY", paths.tune_for_latency.to_string());
    command.env("ERLANG_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none");
    Ok(version)
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().to_owned()
}
