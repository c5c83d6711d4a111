//! A broker on a free port, and a client that sends exactly the frames that a test wants.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inver_amqp::codec::content::{ContentHeader, Properties};
use inver_amqp::codec::frame::{self, Next};
use inver_amqp::codec::table::{Table, TableWriter, Value};
use inver_amqp::codec::{FRAME_BODY, FRAME_HEADER, FRAME_METHOD, Method, PROTOCOL_HEADER, write};
use inver_amqp::{Amqp, Limits};
use inver_broker::{Broker, BrokerConfig, Connection, Protocol, Shutdown, ShutdownTrigger};
use inver_storage::{CommitPolicy, Log, LogOptions};

/// A served plug. Everything ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    pub(crate) shutdown: ShutdownTrigger,
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

    /// Over a folder that outlives it.
    pub(crate) fn on(dir: &std::path::Path, limits: Limits) -> Server {
        let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
        Server::over(Log::open(dir, options).unwrap(), limits)
    }

    /// Over a log that the test made.
    pub(crate) fn over(log: Log, limits: Limits) -> Server {
        let broker =
            Broker::open(log, BrokerConfig { origins: vec!["amqp"], ..BrokerConfig::default() }).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (shutdown, heard) = Shutdown::channel();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let plug: Arc<dyn Protocol> = Arc::new(Amqp::new(limits));
        let serving = broker.clone();
        runtime.spawn(broker.clone().keep_house(heard.clone()));
        runtime.spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let connection = Connection {
                    local: socket.local_addr().unwrap(),
                    io: Box::new(socket),
                    peer,
                    encrypted: false,
                    shutdown: heard.clone(),
                };
                let (plug, broker) = (plug.clone(), serving.clone());
                tokio::spawn(async move { plug.serve(connection, broker).await });
            }
        });
        Server { address, broker, shutdown, runtime: Some(runtime), _dir: None }
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

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    pub(crate) payload: Vec<u8>,
}

/// A message that came.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The method in `Debug` form.
    pub(crate) method: String,
    pub(crate) channel: u16,
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) consumer: String,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) properties: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client that knows frames, and no more than it must.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    input: Vec<u8>,
    pub(crate) frame_max: u32,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    /// A connection that said nothing yet.
    pub(crate) fn raw(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, input: Vec::new(), frame_max: 131_072 }
    }

    /// A connection that is let in.
    pub(crate) fn open(address: SocketAddr) -> Client {
        Client::open_with(address, 131_072, 0)
    }

    pub(crate) fn open_with(address: SocketAddr, frame_max: u32, heartbeat: u16) -> Client {
        Client::open_tuned(address, frame_max, heartbeat, 2047)
    }

    pub(crate) fn open_tuned(
        address: SocketAddr,
        frame_max: u32,
        heartbeat: u16,
        channel_max: u16,
    ) -> Client {
        let mut client = Client::raw(address);
        client.frame_max = frame_max;
        client.bytes(&PROTOCOL_HEADER);
        client.expect("ConnectionStart ");
        client.start_ok("PLAIN", b"\0guest\0guest");
        client.expect("ConnectionTune ");
        client.send(0, &Method::ConnectionTuneOk { channel_max, frame_max, heartbeat });
        client.send(0, &Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false });
        client.expect("ConnectionOpenOk");
        client
    }

    pub(crate) fn start_ok(&mut self, mechanism: &str, response: &[u8]) {
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        let mut table = TableWriter::new(&mut inner);
        for name in ["consumer_cancel_notify", "authentication_failure_close", "connection.blocked"] {
            table.field(name.as_bytes(), Value::Bool(true));
        }
        TableWriter::new(&mut outer).field(b"capabilities", Value::Table(Table::of(&inner)));
        self.send(
            0,
            &Method::ConnectionStartOk {
                client_properties: Table::of(&outer),
                mechanism,
                response,
                locale: "en_US",
            },
        );
    }

    pub(crate) fn open_channel(&mut self, channel: u16) {
        self.send(channel, &Method::ChannelOpen { out_of_band: "" });
        self.expect("ChannelOpenOk");
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, channel: u16, method: &Method<'_>) {
        let mut out = Vec::new();
        write::method(&mut out, channel, method);
        self.bytes(&out);
    }

    pub(crate) fn publish(&mut self, channel: u16, exchange: &str, routing_key: &str, body: &[u8]) {
        self.publish_with(channel, exchange, routing_key, false, &Properties::default(), body);
    }

    pub(crate) fn publish_with(
        &mut self,
        channel: u16,
        exchange: &str,
        routing_key: &str,
        mandatory: bool,
        properties: &Properties<'_>,
        body: &[u8],
    ) {
        let mut out = Vec::new();
        let publish = Method::BasicPublish { ticket: 0, exchange, routing_key, mandatory, immediate: false };
        write::method(&mut out, channel, &publish);
        write::content(&mut out, channel, self.frame_max, |out| properties.encode(out), body);
        self.bytes(&out);
    }

    /// The next frame; none at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Got> {
        loop {
            if let Next::Frame(frame, used) = frame::next(&self.input, 1 << 30).unwrap() {
                let got = Got { kind: frame.kind, channel: frame.channel, payload: frame.payload.to_vec() };
                self.input.drain(..used);
                return Some(got);
            }
            let mut buffer = [0; 65_536];
            match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The next method in `Debug` form; heartbeats are passed over.
    pub(crate) fn method(&mut self) -> String {
        loop {
            let got = self.next().expect("the connection ended");
            if got.kind == FRAME_METHOD {
                return format!("{:?}", Method::decode(&got.payload).unwrap());
            }
            assert_eq!(got.kind, 8, "content where a method was expected");
        }
    }

    /// The next method must look like this.
    pub(crate) fn expect(&mut self, start: &str) -> String {
        let method = self.method();
        assert!(method.starts_with(start), "{start} was expected and {method} came");
        method
    }

    /// The channel or connection must be closed with this text.
    pub(crate) fn expect_close(&mut self, kind: &str, text: &str) {
        let method = self.expect(kind);
        assert!(method.contains(text), "«{text}» is not in {method}");
    }

    /// A method with content, whole.
    pub(crate) fn message(&mut self) -> Message {
        let method = loop {
            let got = self.next().expect("the connection ended");
            if got.kind != 8 {
                break got;
            }
        };
        let decoded = Method::decode(&method.payload).unwrap();
        assert!(decoded.carries_content(), "content was expected and {decoded:?} came");
        let shown = format!("{decoded:?}");
        let (consumer, tag, redelivered, exchange, routing_key) = match decoded {
            Method::BasicDeliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key } => {
                (consumer_tag, delivery_tag, redelivered, exchange, routing_key)
            }
            Method::BasicGetOk { delivery_tag, redelivered, exchange, routing_key, .. } => {
                ("", delivery_tag, redelivered, exchange, routing_key)
            }
            Method::BasicReturn { exchange, routing_key, .. } => ("", 0, false, exchange, routing_key),
            other => panic!("{other:?}"),
        };
        let mut message = Message {
            method: shown,
            channel: method.channel,
            tag,
            redelivered,
            consumer: consumer.into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            properties: Vec::new(),
            body: Vec::new(),
        };
        let header = self.next().unwrap();
        assert_eq!((header.kind, header.channel), (FRAME_HEADER, message.channel));
        let header = ContentHeader::decode(&header.payload).unwrap();
        message.properties = header.properties.to_vec();
        while (message.body.len() as u64) < header.body_bytes {
            let body = self.next().unwrap();
            assert_eq!((body.kind, body.channel), (FRAME_BODY, message.channel));
            message.body.extend_from_slice(&body.payload);
        }
        message
    }

    /// Nothing may come for a while.
    pub(crate) fn expect_silence(&mut self) {
        self.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut buffer = [0; 1024];
        assert!(self.input.is_empty(), "{:?}", self.next());
        match self.socket.read(&mut buffer) {
            Ok(count) => panic!("{count} bytes came: {:?}", &buffer[..count]),
            Err(_) => self.socket.set_read_timeout(Some(PATIENCE)).unwrap(),
        }
    }

    /// Whether something comes within the socket's patience.
    pub(crate) fn has_more(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        if self.input.is_empty() {
            match self.socket.read(&mut buffer) {
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(_) => return false,
            }
        }
        !self.input.is_empty()
    }

    /// The stream must end.
    pub(crate) fn expect_end(&mut self) {
        while let Some(got) = self.next() {
            assert_eq!(got.kind, 8, "{got:?}");
        }
    }

    // ---- short forms, on channel 1

    pub(crate) fn declare(&mut self, queue: &str) -> String {
        self.declare_with(queue, false, Table::default())
    }

    pub(crate) fn declare_with(&mut self, queue: &str, durable: bool, arguments: Table<'_>) -> String {
        self.send(
            1,
            &Method::QueueDeclare {
                ticket: 0,
                queue,
                passive: false,
                durable,
                exclusive: false,
                auto_delete: false,
                nowait: false,
                arguments,
            },
        );
        self.expect("QueueDeclareOk")
    }

    pub(crate) fn declare_exchange(&mut self, exchange: &str, kind: &str) {
        self.send(
            1,
            &Method::ExchangeDeclare {
                ticket: 0,
                exchange,
                kind,
                passive: false,
                durable: false,
                auto_delete: false,
                internal: false,
                nowait: false,
                arguments: Table::default(),
            },
        );
        self.expect("ExchangeDeclareOk");
    }

    pub(crate) fn bind(&mut self, queue: &str, exchange: &str, routing_key: &str, arguments: Table<'_>) {
        self.send(
            1,
            &Method::QueueBind { ticket: 0, queue, exchange, routing_key, nowait: false, arguments },
        );
        self.expect("QueueBindOk");
    }

    pub(crate) fn consume(&mut self, queue: &str, consumer_tag: &str, no_ack: bool) {
        self.consume_with(queue, consumer_tag, no_ack, false, Table::default());
        self.expect("BasicConsumeOk");
    }

    pub(crate) fn consume_with(
        &mut self,
        queue: &str,
        consumer_tag: &str,
        no_ack: bool,
        exclusive: bool,
        arguments: Table<'_>,
    ) {
        self.send(
            1,
            &Method::BasicConsume {
                ticket: 0,
                queue,
                consumer_tag,
                no_local: false,
                no_ack,
                exclusive,
                nowait: false,
                arguments,
            },
        );
    }

    pub(crate) fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        self.send(1, &Method::BasicAck { delivery_tag, multiple });
    }

    pub(crate) fn nack(&mut self, delivery_tag: u64, multiple: bool, requeue: bool) {
        self.send(1, &Method::BasicNack { delivery_tag, multiple, requeue });
    }

    pub(crate) fn qos(&mut self, prefetch_count: u16, global: bool) {
        self.send(1, &Method::BasicQos { prefetch_size: 0, prefetch_count, global });
        self.expect("BasicQosOk");
    }

    pub(crate) fn confirm_select(&mut self) {
        self.send(1, &Method::ConfirmSelect { nowait: false });
        self.expect("ConfirmSelectOk");
    }

    /// `basic.get`, whose answer is read later.
    pub(crate) fn ask(&mut self, queue: &str, no_ack: bool) {
        self.send(1, &Method::BasicGet { ticket: 0, queue, no_ack });
    }

    /// `basic.get`: a message, or none.
    pub(crate) fn get(&mut self, queue: &str, no_ack: bool) -> Option<Message> {
        self.ask(queue, no_ack);
        let got = self.next().unwrap();
        let method = Method::decode(&got.payload).unwrap();
        if matches!(method, Method::BasicGetEmpty { .. }) {
            return None;
        }
        assert!(matches!(method, Method::BasicGetOk { .. }), "{method:?}");
        let mut framed = Vec::new();
        write::method(&mut framed, got.channel, &method);
        framed.append(&mut self.input);
        self.input = framed;
        Some(self.message())
    }

    /// `queue.declare-ok` of a passive declaration.
    pub(crate) fn inspect(&mut self, queue: &str) -> (u32, u32) {
        self.send(
            1,
            &Method::QueueDeclare {
                ticket: 0,
                queue,
                passive: true,
                durable: false,
                exclusive: false,
                auto_delete: false,
                nowait: false,
                arguments: Table::default(),
            },
        );
        let got = self.next().unwrap();
        match Method::decode(&got.payload).unwrap() {
            Method::QueueDeclareOk { message_count, consumer_count, .. } => (message_count, consumer_count),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a state of a queue that others bring about.
    pub(crate) fn await_depth(&mut self, queue: &str, messages: u32, consumers: u32) {
        let since = Instant::now();
        while self.inspect(queue) != (messages, consumers) {
            assert!(since.elapsed() < PATIENCE, "{:?} is not {messages}, {consumers}", self.inspect(queue));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A table with one field after the other.
pub(crate) fn table(fields: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut writer = TableWriter::new(&mut raw);
    for (name, value) in fields {
        writer.field(name.as_bytes(), *value);
    }
    raw
}
