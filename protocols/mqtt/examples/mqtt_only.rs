//! A minimal MQTT broker: one TCP listener, a log in one folder.
//!
//! `cargo run -p inver-mqtt --example mqtt_only -- 127.0.0.1:1883 /path/to/folder`
//!
//! Its settings are those that the Eclipse interoperability suite expects: a keep alive of at most 60 seconds, and
//! subscriptions to `test/nosubscribe` refused.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use inver_broker::{Broker, BrokerConfig, Connection, ProtocolPlugin};
use inver_mqtt::{Mqtt, MqttConfig};
use inver_storage::{Log, LogOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: mqtt_only <address:port> <folder>".into());
    };
    let log = Log::open(Path::new(&folder), LogOptions::default())?;
    let broker = Broker::open(log, BrokerConfig { origins: vec!["mqtt"], ..BrokerConfig::default() })?;
    let shutdown = CancellationToken::new();
    tokio::spawn(broker.clone().housekeep(shutdown.clone()));
    let protocol = Arc::new(Mqtt::new(MqttConfig {
        keep_alive_s_max: Some(60),
        refused_filters: vec!["test/nosubscribe".to_owned()],
        ..MqttConfig::default()
    }));
    let listener = TcpListener::bind(&address).await?;
    loop {
        let (io, peer) = listener.accept().await?;
        io.set_nodelay(true)?;
        let local = io.local_addr()?;
        let connection = Connection::plain(io, peer, local, shutdown.clone());
        let (protocol, broker) = (protocol.clone(), broker.clone());
        tokio::spawn(async move { protocol.serve(connection, broker).await });
    }
}
