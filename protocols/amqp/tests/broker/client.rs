//! A client at the level of frames, which sends exactly those that a test needs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use inver_amqp::codec::content::{ContentHeader, Properties};
use inver_amqp::codec::frame::{self, Next};
use inver_amqp::codec::table::{Table, TableWriter, Value};
use inver_amqp::codec::{FRAME_BODY, FRAME_HEADER, FRAME_METHOD, Method, PROTOCOL_HEADER, write};

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    pub(crate) payload: Vec<u8>,
}

/// A received message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Its method in `Debug` form.
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

/// A client at the level of frames.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    input: Vec<u8>,
    pub(crate) frame_max: u32,
}

/// The time within which something must arrive.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

impl Client {
    /// A connection that has sent nothing yet.
    pub(crate) fn raw(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, input: Vec::new(), frame_max: 131_072 }
    }

    /// An open connection.
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
        client.open_vhost("/");
        client.expect("ConnectionOpenOk");
        client
    }

    pub(crate) fn open_vhost(&mut self, virtual_host: &str) {
        self.send(0, &Method::ConnectionOpen { virtual_host, capabilities: "", insist: false });
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
                Err(error) => panic!("nothing received: {error}"),
            }
        }
    }

    /// The next method in `Debug` form. Heartbeats are skipped.
    pub(crate) fn method(&mut self) -> String {
        loop {
            let got = self.next().expect("the connection ended");
            if got.kind == FRAME_METHOD {
                return format!("{:?}", Method::decode(&got.payload).unwrap());
            }
            assert_eq!(got.kind, 8, "content where a method was expected");
        }
    }

    /// The next method, which must begin like this.
    pub(crate) fn expect(&mut self, start: &str) -> String {
        let method = self.method();
        assert!(method.starts_with(start), "{start} was expected, {method} received");
        method
    }

    /// Expects `channel.close` or `connection.close` with this text.
    pub(crate) fn expect_close(&mut self, kind: &str, text: &str) {
        let method = self.expect(kind);
        assert!(method.contains(text), "«{text}» is not in {method}");
    }

    /// The next method with content, and the content.
    pub(crate) fn message(&mut self) -> Message {
        let method = loop {
            let got = self.next().expect("the connection ended");
            if got.kind != 8 {
                break got;
            }
        };
        let decoded = Method::decode(&method.payload).unwrap();
        assert!(decoded.carries_content(), "content was expected, {decoded:?} received");
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

    /// Expects that nothing arrives for a while.
    pub(crate) fn expect_silence(&mut self) {
        self.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut buffer = [0; 1024];
        assert!(self.input.is_empty(), "{:?}", self.next());
        match self.socket.read(&mut buffer) {
            Ok(count) => panic!("{count} bytes received: {:?}", &buffer[..count]),
            Err(_) => self.socket.set_read_timeout(Some(TIMEOUT)).unwrap(),
        }
    }

    /// Whether something arrives within the socket's timeout.
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

    /// Expects the end of the stream.
    pub(crate) fn expect_end(&mut self) {
        while let Some(got) = self.next() {
            assert_eq!(got.kind, 8, "{got:?}");
        }
    }

    /// Puts a method back before the input.
    pub(crate) fn put_back(&mut self, channel: u16, method: &Method<'_>) {
        let mut framed = Vec::new();
        write::method(&mut framed, channel, method);
        framed.append(&mut self.input);
        self.input = framed;
    }
}

/// A table of these fields.
pub(crate) fn table(fields: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut writer = TableWriter::new(&mut raw);
    for (name, value) in fields {
        writer.field(name.as_bytes(), *value);
    }
    raw
}
