//! The handshake, accepted and refused.

use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, TableWriter, Value};
use inver_amqp::codec::{FRAME_BODY, Method, PROTOCOL_HEADER};

use crate::client::Client;
use crate::server::Server;

fn started(server: &Server) -> Client {
    let mut client = Client::raw(server.address);
    client.bytes(&PROTOCOL_HEADER);
    client.expect("ConnectionStart ");
    client
}

#[test]
fn plain_and_amqplain_are_accepted_and_channels_open() {
    let server = Server::start();
    Client::open(server.address).open_channel(7);
    let mut client = started(&server);
    let mut response = Vec::new();
    TableWriter::new(&mut response)
        .field(b"LOGIN", Value::Text(b"guest"))
        .field(b"PASSWORD", Value::Text(b"guest"));
    client.start_ok("AMQPLAIN", &response);
    client.expect("ConnectionTune { channel_max: 2047, frame_max: 131072, heartbeat: 60 }");
}

#[test]
fn a_handshake_in_one_write_is_processed() {
    let server = Server::start();
    let mut client = Client::raw(server.address);
    let mut out = PROTOCOL_HEADER.to_vec();
    let mut say =
        |channel: u16, method: Method<'_>| inver_amqp::codec::write::method(&mut out, channel, &method);
    let response = b"\0guest\0guest";
    say(
        0,
        Method::ConnectionStartOk {
            client_properties: Table::default(),
            mechanism: "PLAIN",
            response,
            locale: "en_US",
        },
    );
    say(0, Method::ConnectionTuneOk { channel_max: 5, frame_max: 8192, heartbeat: 0 });
    say(0, Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false });
    say(3, Method::ChannelOpen { out_of_band: "" });
    for byte in out {
        client.bytes(&[byte]);
    }
    for expected in ["ConnectionStart", "ConnectionTune", "ConnectionOpenOk", "ChannelOpenOk"] {
        client.expect(expected);
    }
}

#[test]
fn a_wrong_password_is_refused() {
    let server = Server::start();
    let mut client = started(&server);
    client.start_ok("PLAIN", b"\0guest\0wrong");
    client.expect_close(
        "ConnectionClose",
        "reply_code: 403, reply_text: \"ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.",
    );
}

#[test]
fn an_unknown_mechanism_is_refused_with_connection_close() {
    let server = Server::start();
    let mut client = started(&server);
    client.start_ok("EXTERNAL", b"");
    client.expect_close(
        "ConnectionClose",
        "503, reply_text: \"COMMAND_INVALID - unknown authentication mechanism",
    );
}

#[test]
fn an_unknown_vhost_is_refused() {
    let server = Server::start();
    let mut client = started(&server);
    client.start_ok("PLAIN", b"\0guest\0guest");
    client.expect("ConnectionTune ");
    client.send(0, &Method::ConnectionTuneOk { channel_max: 10, frame_max: 8192, heartbeat: 0 });
    client.send(0, &Method::ConnectionOpen { virtual_host: "nowhere", capabilities: "", insist: false });
    client.expect_close("ConnectionClose", "530, reply_text: \"NOT_ALLOWED - vhost nowhere not found\"");
}

#[test]
fn other_protocol_headers_are_answered_with_the_supported_one() {
    let server = Server::start();
    for hello in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"AMQP\x00\x01\x00\x00", b"\x16\x03\x01\x02\x00\x01\x00\x01"]
    {
        let mut client = Client::raw(server.address);
        client.bytes(hello);
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut client.socket, &mut answer).unwrap();
        assert_eq!(answer, PROTOCOL_HEADER);
    }
}

#[test]
fn before_the_login_frames_are_bounded_and_methods_in_order() {
    let server = Server::start();
    let mut client = started(&server);
    client.bytes(&[1, 0, 0, 0, 0x7F, 0, 0]);
    client.expect_close(
        "ConnectionClose",
        "501, reply_text: \"FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large",
    );
    let mut client = started(&server);
    client.send(0, &Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false });
    client.expect_close(
        "ConnectionClose",
        "504, reply_text: \"CHANNEL_ERROR - unexpected method in connection state starting",
    );
    let mut client = started(&server);
    client.send(1, &Method::ChannelOpen { out_of_band: "" });
    client.expect_close("ConnectionClose", "505, reply_text: \"UNEXPECTED_FRAME - type 1");
}

#[test]
fn deeply_nested_client_properties_are_refused() {
    let server = Server::start();
    let mut client = started(&server);
    let mut raw = Vec::new();
    for _ in 0..800 {
        let inner = std::mem::take(&mut raw);
        TableWriter::new(&mut raw).field(b"n", Value::Table(Table::of(&inner)));
    }
    assert!(raw.len() < 8000);
    client.send(
        0,
        &Method::ConnectionStartOk {
            client_properties: Table::of(&raw),
            mechanism: "PLAIN",
            response: b"",
            locale: "",
        },
    );
    client.expect_close(
        "ConnectionClose",
        "502, reply_text: \"SYNTAX_ERROR - field table nested deeper than 32",
    );
}

#[test]
fn heartbeats_are_sent_and_a_silent_client_is_disconnected() {
    let server = Server::start();
    let mut client = Client::open_with(server.address, 8192, 1);
    let since = tokio::time::Instant::now();
    let mut beats = 0;
    while let Some(got) = client.next() {
        assert_eq!((got.kind, got.channel, got.payload.len()), (8, 0, 0));
        beats += 1;
    }
    assert!(beats >= 2, "{beats}");
    let lasted = since.elapsed().as_secs_f32();
    assert!((1.5..4.0).contains(&lasted), "{lasted}");
}

#[test]
fn a_client_that_sends_heartbeats_stays_connected() {
    let server = Server::start();
    let mut client = Client::open_with(server.address, 8192, 1);
    client.open_channel(1);
    // The server sends two an interval, and disconnects a client that is silent for two intervals.
    for _ in 0..6 {
        let beat = client.next().expect("the connection ended");
        assert_eq!((beat.kind, beat.channel), (8, 0));
        client.bytes(&inver_amqp::codec::write::HEARTBEAT);
    }
    client.qos(1, false);
}

#[test]
fn either_side_can_close_a_connection() {
    let server = Server::start();
    let mut client = server.client();
    client
        .send(0, &Method::ConnectionClose { reply_code: 200, reply_text: "bye", class_id: 0, method_id: 0 });
    client.expect("ConnectionCloseOk");
    client.expect_end();
    let mut client = server.client();
    server.shutdown.cancel();
    client.expect_close(
        "ConnectionClose",
        "320, reply_text: \"CONNECTION_FORCED - broker forced connection closure",
    );
    client.send(0, &Method::ConnectionCloseOk {});
    client.expect_end();
}

#[test]
fn a_framing_error_closes_the_connection() {
    let server = Server::start();
    let mut client = server.client();
    client.bytes(&[FRAME_BODY, 0, 1, 0, 0, 0, 1, b'x', b'!']);
    client.expect_close(
        "ConnectionClose",
        "501, reply_text: \"FRAME_ERROR - type 3, all octets = <<>>: {invalid_frame_end_marker,33}",
    );
    let mut client = server.client();
    client.bytes(&[9, 0, 0, 0, 0, 0, 0, 0xCE]);
    client.expect_close(
        "ConnectionClose",
        "501, reply_text: \"FRAME_ERROR - type 9, all octets = <<>>: unknown_frame",
    );
}

#[test]
fn update_secret_is_accepted() {
    let server = Server::start();
    let mut client = server.client();
    client.send(0, &Method::ConnectionUpdateSecret { new_secret: b"x", reason: "because" });
    client.expect("ConnectionUpdateSecretOk");
    client.declare("q");
    client.publish_with(1, "", "q", false, &Properties::default(), b"still here");
    assert_eq!(client.get("q", true).unwrap().text(), "still here");
}
