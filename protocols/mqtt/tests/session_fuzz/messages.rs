//! Messages of MQTT clients for fuzzing: few names, so that sessions meet.

use std::sync::Arc;

use inver_mqtt::{Mqtt, MqttConfig};

use crate::session_fuzz::{Dialect, Script};

pub(crate) const DIALECT: Dialect =
    Dialect { protocol: || Arc::new(Mqtt::new(MqttConfig::default())), login, message };

const CLIENTS: [&[u8]; 4] = [b"a", b"b", b"c", b""];
const TOPICS: [&[u8]; 5] = [b"t", b"t/x", b"t/y", b"$SYS/x", b""];
const FILTERS: [&[u8]; 7] = [b"t", b"t/+", b"#", b"$share/g/t/#", b"$share/g/t", b"+/x", b"t/#/x"];

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let (mut out, mut left) = (vec![kind], body.len());
    loop {
        let more = if left > 127 { 0x80 } else { 0 };
        out.push((left % 128) as u8 | more);
        left /= 128;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// Properties of version 5; nothing for others.
fn properties(script: &mut Script<'_>, out: &mut Vec<u8>, some: &[&[u8]]) {
    let is_v5 = script.is();
    if is_v5 {
        let is_empty = some.is_empty() || script.is();
        let properties = if is_empty { &b""[..] } else { script.pick(some) };
        out.push(properties.len() as u8);
        out.extend_from_slice(properties);
    }
}

fn login(script: &mut Script<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    let version = script.pick(&[4, 5, 5]);
    let has_will = script.below(4) == 0;
    body.push(version);
    body.push(u8::from(script.is()) << 1 | if has_will { 0x0c } else { 0 });
    body.extend_from_slice(&[0, 60]);
    if version == 5 {
        let some =
            script.pick(&[&b""[..], &[0x11, 0, 0, 0, 1], &[0x11, 0xff, 0xff, 0xff, 0xff], &[0x21, 0, 2]]);
        body.push(some.len() as u8);
        body.extend_from_slice(some);
    }
    text(&mut body, script.pick(&CLIENTS));
    if has_will {
        if version == 5 {
            body.push(0);
        }
        text(&mut body, script.pick(&TOPICS));
        text(&mut body, b"gone");
    }
    packet(0x10, &body)
}

fn message(script: &mut Script<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    let identifier = [0, 1 + script.below(4) as u8];
    match script.below(16) {
        0..5 => {
            let qos = script.below(3) as u8;
            text(&mut body, script.pick(&TOPICS));
            if qos > 0 {
                body.extend_from_slice(&identifier);
            }
            properties(script, &mut body, &[&[0x23, 0, 1], &[2, 0, 0, 0, 1], &[1, 1]]);
            body.extend(script.bytes(40));
            let flags = script.byte() & 0x09;
            packet(0x30 | qos << 1 | flags, &body)
        }
        5..8 => {
            body.extend_from_slice(&identifier);
            properties(script, &mut body, &[&[0x0b, 1]]);
            for _ in 0..1 + script.below(3) {
                text(&mut body, script.pick(&FILTERS));
                body.push(script.pick(&[0, 1, 2, 5, 0x2a]));
            }
            packet(0x82, &body)
        }
        8 => {
            body.extend_from_slice(&identifier);
            properties(script, &mut body, &[]);
            text(&mut body, script.pick(&FILTERS));
            packet(0xa2, &body)
        }
        9..13 => {
            body.extend_from_slice(&identifier);
            if script.is() {
                body.push(script.pick(&[0, 0x10, 0x80, 0x92]));
            }
            packet(script.pick(&[0x40, 0x50, 0x62, 0x70]), &body)
        }
        13 => packet(0xc0, &[]),
        14 => packet(0xe0, if script.is() { &[] } else { &[4] }),
        _ => login(script),
    }
}
