use super::*;
use crate::codec::frame::{self, Next};

fn login(user: &str, password: &str) -> Credentials {
    Credentials::Password { user: user.into(), password: password.into() }
}

#[test]
fn protocol_headers_are_recognized() {
    assert_eq!(opening(b""), Opening::NeedMore);
    assert_eq!(opening(b"AMQP\x00"), Opening::NeedMore);
    assert_eq!(opening(&PROTOCOL_HEADER), Opening::Accepted);
    assert_eq!(opening(b"AMQP\x01\x01\x00\x09more"), Opening::Accepted);
    assert_eq!(opening(b"AMQP\x00\x01\x00\x00"), Opening::Refused);
    assert_eq!(opening(b"GET "), Opening::Refused);
    assert_eq!(opening(&[0x16, 3]), Opening::Refused);
}

#[test]
fn responses_of_mechanisms_are_parsed() {
    let all = Mechanisms { certificate_user: Some("ann".into()), is_anonymous: true };
    let credentials = |mechanism: &str, response: &[u8]| all.credentials(mechanism, response);
    assert_eq!(credentials("PLAIN", b"\0guest\0secret"), Ok(login("guest", "secret")));
    assert_eq!(credentials("PLAIN", b"other\0guest\0"), Ok(login("guest", "")));
    for bad in [&b"guest"[..], b"\0guest", b"\0a\0b\0c", b""] {
        assert_eq!(credentials("PLAIN", bad).unwrap_err().code, ReplyCode::SyntaxError);
    }
    let mut table = Vec::new();
    TableWriter::new(&mut table).field(b"LOGIN", Value::Text(b"g")).field(b"PASSWORD", Value::Text(b"p"));
    assert_eq!(credentials("AMQPLAIN", &table), Ok(login("g", "p")));
    assert!(credentials("AMQPLAIN", b"nonsense").is_err());
    assert_eq!(credentials("ANONYMOUS", b"trace"), Ok(Credentials::Anonymous));
    assert_eq!(credentials("EXTERNAL", b""), Ok(Credentials::Certificate { user: "ann".into() }));
    assert_eq!(
        credentials("SCRAM", b"").unwrap_err().text,
        "COMMAND_INVALID - unknown authentication mechanism 'SCRAM'"
    );
}

#[test]
fn only_mechanisms_that_are_possible_are_offered() {
    let with = |user: Option<&str>, is_anonymous| Mechanisms {
        certificate_user: user.map(str::to_owned),
        is_anonymous,
    };
    assert_eq!(with(None, false).names(), "PLAIN AMQPLAIN");
    assert_eq!(with(Some("ann"), false).names(), "PLAIN AMQPLAIN EXTERNAL");
    assert_eq!(with(Some("ann"), true).names(), "PLAIN AMQPLAIN EXTERNAL ANONYMOUS");
    for (mechanism, how) in [("EXTERNAL", "unknown"), ("ANONYMOUS", "invalid"), ("RABBIT-CR-DEMO", "invalid")]
    {
        assert_eq!(
            with(None, false).credentials(mechanism, b"ann").unwrap_err().text,
            format!("COMMAND_INVALID - {how} authentication mechanism '{mechanism}'")
        );
    }
}

fn start_ok<'a>(client_properties: Table<'a>, response: &'a [u8]) -> Method<'a> {
    Method::ConnectionStartOk { client_properties, mechanism: "PLAIN", response, locale: "en_US" }
}

#[test]
fn a_handshake_reaches_open() {
    let limits = Limits::default();
    let mut handshake = Handshake::new(&limits, Mechanisms::default());
    let mut out = Vec::new();
    handshake.start(&mut out);
    let Ok(Next::Frame(start, _)) = frame::next(&out, 8192) else { panic!("no frame") };
    let Ok(Method::ConnectionStart { server_properties, .. }) = Method::decode(start.payload) else {
        panic!()
    };
    assert_eq!(server_properties.get("product"), Some(Value::Text(b"RabbitMQ")));
    let (mut inner, mut properties) = (Vec::new(), Vec::new());
    TableWriter::new(&mut inner).field(b"consumer_cancel_notify", Value::Bool(true));
    TableWriter::new(&mut properties).field(b"capabilities", Value::Table(Table::of(&inner)));
    let step = handshake.method(&start_ok(Table::of(&properties), b"\0u\0p"), &limits);
    assert_eq!(step, Ok(Step::Authenticate(login("u", "p"))));
    assert!(handshake.capabilities.consumer_cancel_notify);
    assert!(!handshake.capabilities.authentication_failure_close);
    handshake.authenticated(true, None, &limits, &mut out).unwrap();
    let tune = Method::ConnectionTuneOk { channel_max: 10, frame_max: 8192, heartbeat: 5 };
    assert_eq!(handshake.method(&tune, &limits), Ok(Step::Continue));
    assert_eq!(handshake.tuned, Tuned { frame_max: 8192, channel_max: 10, heartbeat_s: 5 });
    let open = Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false };
    assert_eq!(handshake.method(&open, &limits), Ok(Step::Open { vhost: "/".into() }));
}

#[test]
fn methods_out_of_order_are_refused() {
    let limits = Limits::default();
    let mut handshake = Handshake::new(&limits, Mechanisms::default());
    handshake.start(&mut Vec::new());
    let open = Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false };
    let refusal = handshake.method(&open, &limits).unwrap_err();
    assert_eq!(refusal.text, "CHANNEL_ERROR - unexpected method in connection state starting");
    handshake.method(&start_ok(Table::default(), b"\0u\0p"), &limits).unwrap();
    assert!(handshake.method(&start_ok(Table::default(), b"\0u\0p"), &limits).is_err(), "twice");
}

#[test]
fn tuning_beyond_the_bounds_is_refused() {
    let limits = Limits::default();
    let tune = |frame_max, channel_max| {
        Handshake::new(&limits, Mechanisms::default()).tune(&limits, frame_max, channel_max, 0)
    };
    assert!(tune(4096, 1).is_ok() && tune(131_072, 2047).is_ok());
    let text = |result: Result<(), Refusal>| result.unwrap_err().text;
    assert_eq!(
        text(tune(4095, 1)),
        "NOT_ALLOWED - negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"
    );
    assert_eq!(
        text(tune(0, 1)),
        "NOT_ALLOWED - negotiated frame_max = 0 is higher than the maximum allowed value (131072)"
    );
    assert_eq!(
        text(tune(8192, 3000)),
        "NOT_ALLOWED - negotiated channel_max = 3000 is higher than the maximum allowed value (2047)"
    );
}
