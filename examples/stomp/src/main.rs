//! A broker that speaks STOMP: one TCP listener, a log in one folder.
//!
//! `cargo run -p inver-stomp-example -- 127.0.0.1:61613 /path/to/folder`

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use inver_broker::{Broker, BrokerConfig, Connection, ProtocolPlugin};
use inver_driver::Timeouts;
use inver_stomp_example::{NAME, Stomp};
use inver_storage::{Log, LogOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: inver-stomp-example <address:port> <folder>".into());
    };
    let log = Log::open(Path::new(&folder), LogOptions::default())?;
    let broker = Broker::open(log, BrokerConfig { origins: vec![NAME], ..BrokerConfig::default() })?;
    let shutdown = CancellationToken::new();
    tokio::spawn(broker.clone().housekeep(shutdown.clone()));
    let protocol = Arc::new(Stomp::new(Timeouts::default()));
    let listener = TcpListener::bind(&address).await?;
    loop {
        let (io, peer) = listener.accept().await?;
        io.set_nodelay(true)?;
        let (local, shutdown) = (io.local_addr()?, shutdown.clone());
        let connection = Connection::plain(io, peer, local, shutdown);
        let (protocol, broker) = (protocol.clone(), broker.clone());
        tokio::spawn(async move { protocol.serve(connection, broker).await });
    }
}
