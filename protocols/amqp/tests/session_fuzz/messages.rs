//! Messages of AMQP clients for fuzzing: few names, so that sessions meet.

use std::sync::Arc;

use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, TableWriter, Value};
use inver_amqp::codec::{Method, PROTOCOL_HEADER, write};
use inver_amqp::{Amqp, Limits};

use crate::session_fuzz::{Dialect, Script};

pub(crate) const DIALECT: Dialect =
    Dialect { protocol: || Arc::new(Amqp::new(Limits::default())), login, message };

const QUEUES: [&str; 4] = ["q", "r", "s", ""];
const EXCHANGES: [&str; 5] = ["e", "f", "amq.topic", "amq.fanout", ""];
const KEYS: [&str; 5] = ["q", "r", "a.b", "a.*", "#"];
const KINDS: [&str; 5] = ["direct", "fanout", "topic", "headers", "none"];
const FRAME_MAX: u32 = 131_072;

fn login(script: &mut Script<'_>) -> Vec<u8> {
    let mut out = PROTOCOL_HEADER.to_vec();
    let start = Method::ConnectionStartOk {
        client_properties: Table::of(b""),
        mechanism: "PLAIN",
        response: b"\0guest\0guest",
        locale: "en_US",
    };
    write::method(&mut out, 0, &start);
    let heartbeat = script.below(2) as u16 * 60;
    write::method(
        &mut out,
        0,
        &Method::ConnectionTuneOk { channel_max: 10, frame_max: FRAME_MAX, heartbeat },
    );
    write::method(
        &mut out,
        0,
        &Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false },
    );
    for channel in 1..3 {
        write::method(&mut out, channel, &Method::ChannelOpen { out_of_band: "" });
    }
    out
}

/// Arguments of a queue or a consumer.
fn arguments(script: &mut Script<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut table = TableWriter::new(&mut out);
    match script.below(10) {
        0 => {
            table.field(b"x-message-ttl", Value::I32(1 + script.below(50) as i32));
        }
        1 => {
            table.field(b"x-dead-letter-exchange", Value::Text(b""));
            table.field(b"x-dead-letter-routing-key", Value::Text(script.pick(&QUEUES).as_bytes()));
        }
        2 => {
            table.field(b"x-max-length", Value::I32(script.below(3) as i32));
            table.field(b"x-overflow", Value::Text(script.pick(&[&b"reject-publish"[..], b"drop-head"])));
        }
        3 => {
            table.field(b"x-single-active-consumer", Value::Bool(true));
        }
        4 => {
            table.field(b"x-queue-type", Value::Text(b"quorum"));
            table.field(b"x-delivery-limit", Value::I32(1));
        }
        5 => {
            table.field(b"x-priority", Value::I32(script.below(3) as i32));
        }
        6 => {
            table.field(b"x-expires", Value::I32(1 + script.below(30) as i32));
        }
        _ => {}
    }
    out
}

fn message(script: &mut Script<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let channel = 1 + script.below(3) as u16;
    let table = arguments(script);
    let arguments = Table::of(&table);
    let (queue, exchange, routing_key) = (script.pick(&QUEUES), script.pick(&EXCHANGES), script.pick(&KEYS));
    let (a, b, c, d) = (script.is(), script.is(), script.is(), script.is());
    let (ticket, nowait, delivery_tag) = (0, script.is(), script.below(12));
    let consumer_tag = script.pick(&["t", "u", ""]);
    let method = match script.below(28) {
        0..3 => Method::QueueDeclare {
            ticket,
            queue,
            passive: script.below(5) == 0,
            durable: a,
            exclusive: script.below(6) == 0,
            auto_delete: b,
            nowait,
            arguments,
        },
        3 => Method::ExchangeDeclare {
            ticket,
            exchange,
            kind: script.pick(&KINDS),
            passive: false,
            durable: a,
            auto_delete: b,
            internal: script.below(6) == 0,
            nowait,
            arguments: Table::of(b""),
        },
        4 => Method::QueueBind { ticket, queue, exchange, routing_key, nowait, arguments },
        5 => Method::QueueUnbind { ticket, queue, exchange, routing_key, arguments },
        6 => Method::ExchangeBind {
            ticket,
            destination: exchange,
            source: script.pick(&EXCHANGES),
            routing_key,
            nowait,
            arguments,
        },
        7 => Method::QueuePurge { ticket, queue, nowait },
        8 => Method::QueueDelete { ticket, queue, if_unused: a, if_empty: b, nowait },
        9 => Method::ExchangeDelete { ticket, exchange, if_unused: a, nowait },
        10 => Method::BasicQos { prefetch_size: 0, prefetch_count: script.below(4) as u16, global: a },
        11..14 => Method::BasicConsume {
            ticket,
            queue,
            consumer_tag,
            no_local: a,
            no_ack: b,
            exclusive: script.below(6) == 0,
            nowait,
            arguments,
        },
        14 => Method::BasicCancel { consumer_tag, nowait },
        15 => Method::BasicGet { ticket, queue, no_ack: a },
        16..18 => Method::BasicAck { delivery_tag, multiple: a },
        18 => Method::BasicReject { delivery_tag, requeue: a },
        19 => Method::BasicNack { delivery_tag, multiple: a, requeue: b },
        20 => Method::BasicRecover { requeue: a },
        21 => Method::ConfirmSelect { nowait },
        22 => script.pick(&[Method::TxSelect {}, Method::TxCommit {}, Method::TxRollback {}]),
        23 => Method::ChannelClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 },
        24 => Method::ChannelOpen { out_of_band: "" },
        _ => {
            let publish =
                Method::BasicPublish { ticket, exchange, routing_key, mandatory: a, immediate: false };
            write::method(&mut out, channel, &publish);
            let body = script.bytes(60);
            let mode = if c { 2 } else { 1 };
            let properties = Properties {
                delivery_mode: Some(mode),
                expiration: d.then_some(&b"5"[..]),
                reply_to: b.then_some(&b"amq.rabbitmq.reply-to"[..]),
                ..Properties::default()
            };
            write::content(&mut out, channel, FRAME_MAX, |out| properties.encode(out), &body);
            return out;
        }
    };
    write::method(&mut out, channel, &method);
    out
}
