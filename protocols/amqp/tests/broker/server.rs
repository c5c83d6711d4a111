//! A broker that serves AMQP on a free port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use inver_amqp::{Amqp, Limits};
use inver_broker::{Authenticator, Broker, BrokerConfig, Clock, Connection, ProtocolPlugin};
use inver_storage::{CommitPolicy, Log, LogOptions};
use tokio_util::sync::CancellationToken;

use crate::client::Client;

/// A serving broker, which ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    pub(crate) shutdown: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::on(dir.path(), limits);
        server._dir = Some(dir);
        server
    }

    /// Opens a log in a folder that outlives the server.
    pub(crate) fn on(dir: &std::path::Path, limits: Limits) -> Server {
        let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
        Server::over(Log::open(dir, options).unwrap(), limits)
    }

    /// Serves from a log that the test opened.
    pub(crate) fn over(log: Log, limits: Limits) -> Server {
        let config = BrokerConfig { origins: vec!["amqp"], ..BrokerConfig::default() };
        Server::serve(log, limits, config, |connection| connection)
    }

    /// Serves with an authenticator, and connections that a listener of the test has changed.
    pub(crate) fn listening(
        authenticator: Arc<dyn Authenticator>,
        listen: fn(Connection) -> Connection,
    ) -> Server {
        let config = BrokerConfig { origins: vec!["amqp"], authenticator, ..BrokerConfig::default() };
        Server::on_temporary(config, listen)
    }

    /// Serves with a clock that the test advances.
    pub(crate) fn with_clock(clock: &Clock) -> Server {
        let config = BrokerConfig { origins: vec!["amqp"], clock: clock.clone(), ..BrokerConfig::default() };
        Server::on_temporary(config, |connection| connection)
    }

    fn on_temporary(config: BrokerConfig, listen: fn(Connection) -> Connection) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
        let log = Log::open(dir.path(), options).unwrap();
        let mut server = Server::serve(log, Limits::default(), config, listen);
        server._dir = Some(dir);
        server
    }

    fn serve(log: Log, limits: Limits, config: BrokerConfig, listen: fn(Connection) -> Connection) -> Server {
        let broker = Broker::open(log, config).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        let requested = shutdown.clone();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let protocol: Arc<dyn ProtocolPlugin> = Arc::new(Amqp::new(limits));
        let serving = broker.clone();
        runtime.spawn(broker.clone().housekeep(requested.clone()));
        runtime.spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let local = socket.local_addr().unwrap();
                let connection = listen(Connection::plain(socket, peer, local, requested.clone()));
                let (protocol, broker) = (protocol.clone(), serving.clone());
                tokio::spawn(async move { protocol.serve(connection, broker).await });
            }
        });
        Server { address, broker, shutdown, runtime: Some(runtime), _dir: None }
    }

    /// The runtime that it serves on.
    pub(crate) fn handle(&self) -> tokio::runtime::Handle {
        self.runtime.as_ref().unwrap().handle().clone()
    }

    /// A connection with channel 1 open.
    pub(crate) fn client(&self) -> Client {
        let mut client = Client::open(self.address);
        client.open_channel(1);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
        _ = self.broker.log().shutdown();
    }
}
