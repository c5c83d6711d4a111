//! The smallest broker that this plug makes: MQTT over TCP on one address, its log in one folder.
//!
//! `cargo run -p inver-mqtt --example mqtt_only -- 127.0.0.1:1883 /path/to/folder`
//!
//! It is set as the Eclipse interoperability suite wants a broker: a keep alive of 60 seconds at most, and nobody may
//! subscribe to `test/nosubscribe`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use inver_broker::{Broker, BrokerConfig, Connection, ProtocolPlugin, Shutdown};
use inver_mqtt::{Mqtt, MqttConfig};
use inver_storage::{Log, LogOptions};
use tokio::net::TcpListener;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("an address and a folder are wanted".into());
    };
    let log = Log::open(Path::new(&folder), LogOptions::default())?;
    let broker = Broker::open(log, BrokerConfig { origins: vec!["mqtt"], ..BrokerConfig::default() })?;
    let (_trigger, shutdown) = Shutdown::channel();
    tokio::spawn(broker.clone().housekeep(shutdown.clone()));
    let plug = Arc::new(Mqtt::new(MqttConfig {
        keep_alive_s_max: Some(60),
        refused_filters: vec!["test/nosubscribe".to_owned()],
        ..MqttConfig::default()
    }));
    let listener = TcpListener::bind(&address).await?;
    loop {
        let (io, peer) = listener.accept().await?;
        io.set_nodelay(true)?;
        let local = io.local_addr()?;
        let connection =
            Connection { io: Box::new(io), peer, local, encrypted: false, shutdown: shutdown.clone() };
        let (plug, broker) = (plug.clone(), broker.clone());
        tokio::spawn(async move { plug.serve(connection, broker).await });
    }
}
