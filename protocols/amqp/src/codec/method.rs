//! The methods of AMQP 0-9-1 with RabbitMQ's extensions: one table from which decoder and encoder are generated.
//!
//! A [`Method`] borrows its strings and tables from the frame. Decoding validates everything, nested tables included.

use super::Malformed;
use super::table::Table;
use super::wire::{Reader, Writer};

/// A field type in Rust.
macro_rules! rust_type {
    (bit) => { bool };
    (octet) => { u8 };
    (short) => { u16 };
    (long) => { u32 };
    (longlong) => { u64 };
    (shortstr) => { &'a str };
    (longstr) => { &'a [u8] };
    (table) => { Table<'a> };
}

macro_rules! methods {
    ($($variant:ident = $class:literal, $method:literal, $name:literal, $content:literal
        { $($field:ident : $kind:ident),* $(,)? })*) => {
        /// A method with its arguments, named as in the specification.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the specification documents each field under its name")]
        pub enum Method<'a> {
            $($variant { $($field: rust_type!($kind)),* },)*
        }

        /// Class id, method id and field types of each method, for generated tests.
        #[cfg(test)]
        pub(super) const SIGNATURES: &[(u16, u16, &[&str])] = &[$(($class, $method, &[$(stringify!($kind)),*]),)*];

        impl<'a> Method<'a> {
            /// Decodes a method frame's payload.
            pub fn decode(payload: &'a [u8]) -> Result<Method<'a>, Malformed> {
                let mut reader = Reader::new(payload);
                let (class, method) = (reader.short()?, reader.short()?);
                let decoded = match (class, method) {
                    $(($class, $method) => Method::$variant { $($field: reader.$kind()?),* },)*
                    _ => return Err(Malformed::UnknownMethod { class, method }),
                };
                if reader.rest().is_empty() { Ok(decoded) } else { Err(Malformed::Trailing) }
            }

            /// Appends the payload of a method frame.
            pub fn encode(&self, out: &mut Vec<u8>) {
                let mut writer = Writer::new(out);
                match *self {
                    $(Method::$variant { $($field),* } => {
                        writer.short($class);
                        writer.short($method);
                        $(writer.$kind($field);)*
                    })*
                }
            }

            /// Class and method id.
            pub fn id(&self) -> (u16, u16) {
                match self { $(Method::$variant { .. } => ($class, $method),)* }
            }

            /// The name, such as `queue.declare`.
            pub fn name(&self) -> &'static str {
                match self { $(Method::$variant { .. } => $name,)* }
            }

            /// Whether a content header and body follow.
            pub fn carries_content(&self) -> bool {
                match self { $(Method::$variant { .. } => $content,)* }
            }
        }
    };
}

methods! {
    ConnectionStart = 10, 10, "connection.start", false {
        version_major: octet, version_minor: octet, server_properties: table, mechanisms: longstr, locales: longstr }
    ConnectionStartOk = 10, 11, "connection.start_ok", false {
        client_properties: table, mechanism: shortstr, response: longstr, locale: shortstr }
    ConnectionSecure = 10, 20, "connection.secure", false { challenge: longstr }
    ConnectionSecureOk = 10, 21, "connection.secure_ok", false { response: longstr }
    ConnectionTune = 10, 30, "connection.tune", false { channel_max: short, frame_max: long, heartbeat: short }
    ConnectionTuneOk = 10, 31, "connection.tune_ok", false { channel_max: short, frame_max: long, heartbeat: short }
    ConnectionOpen = 10, 40, "connection.open", false { virtual_host: shortstr, capabilities: shortstr, insist: bit }
    ConnectionOpenOk = 10, 41, "connection.open_ok", false { known_hosts: shortstr }
    ConnectionClose = 10, 50, "connection.close", false {
        reply_code: short, reply_text: shortstr, class_id: short, method_id: short }
    ConnectionCloseOk = 10, 51, "connection.close_ok", false {}
    ConnectionBlocked = 10, 60, "connection.blocked", false { reason: shortstr }
    ConnectionUnblocked = 10, 61, "connection.unblocked", false {}
    ConnectionUpdateSecret = 10, 70, "connection.update_secret", false { new_secret: longstr, reason: shortstr }
    ConnectionUpdateSecretOk = 10, 71, "connection.update_secret_ok", false {}

    ChannelOpen = 20, 10, "channel.open", false { out_of_band: shortstr }
    ChannelOpenOk = 20, 11, "channel.open_ok", false { channel_id: longstr }
    ChannelFlow = 20, 20, "channel.flow", false { active: bit }
    ChannelFlowOk = 20, 21, "channel.flow_ok", false { active: bit }
    ChannelClose = 20, 40, "channel.close", false {
        reply_code: short, reply_text: shortstr, class_id: short, method_id: short }
    ChannelCloseOk = 20, 41, "channel.close_ok", false {}

    AccessRequest = 30, 10, "access.request", false {
        realm: shortstr, exclusive: bit, passive: bit, active: bit, write: bit, read: bit }
    AccessRequestOk = 30, 11, "access.request_ok", false { ticket: short }

    ExchangeDeclare = 40, 10, "exchange.declare", false {
        ticket: short, exchange: shortstr, kind: shortstr, passive: bit, durable: bit, auto_delete: bit,
        internal: bit, nowait: bit, arguments: table }
    ExchangeDeclareOk = 40, 11, "exchange.declare_ok", false {}
    ExchangeDelete = 40, 20, "exchange.delete", false { ticket: short, exchange: shortstr, if_unused: bit, nowait: bit }
    ExchangeDeleteOk = 40, 21, "exchange.delete_ok", false {}
    ExchangeBind = 40, 30, "exchange.bind", false {
        ticket: short, destination: shortstr, source: shortstr, routing_key: shortstr, nowait: bit, arguments: table }
    ExchangeBindOk = 40, 31, "exchange.bind_ok", false {}
    ExchangeUnbind = 40, 40, "exchange.unbind", false {
        ticket: short, destination: shortstr, source: shortstr, routing_key: shortstr, nowait: bit, arguments: table }
    ExchangeUnbindOk = 40, 51, "exchange.unbind_ok", false {}

    QueueDeclare = 50, 10, "queue.declare", false {
        ticket: short, queue: shortstr, passive: bit, durable: bit, exclusive: bit, auto_delete: bit, nowait: bit,
        arguments: table }
    QueueDeclareOk = 50, 11, "queue.declare_ok", false { queue: shortstr, message_count: long, consumer_count: long }
    QueueBind = 50, 20, "queue.bind", false {
        ticket: short, queue: shortstr, exchange: shortstr, routing_key: shortstr, nowait: bit, arguments: table }
    QueueBindOk = 50, 21, "queue.bind_ok", false {}
    QueuePurge = 50, 30, "queue.purge", false { ticket: short, queue: shortstr, nowait: bit }
    QueuePurgeOk = 50, 31, "queue.purge_ok", false { message_count: long }
    QueueDelete = 50, 40, "queue.delete", false {
        ticket: short, queue: shortstr, if_unused: bit, if_empty: bit, nowait: bit }
    QueueDeleteOk = 50, 41, "queue.delete_ok", false { message_count: long }
    QueueUnbind = 50, 50, "queue.unbind", false {
        ticket: short, queue: shortstr, exchange: shortstr, routing_key: shortstr, arguments: table }
    QueueUnbindOk = 50, 51, "queue.unbind_ok", false {}

    BasicQos = 60, 10, "basic.qos", false { prefetch_size: long, prefetch_count: short, global: bit }
    BasicQosOk = 60, 11, "basic.qos_ok", false {}
    BasicConsume = 60, 20, "basic.consume", false {
        ticket: short, queue: shortstr, consumer_tag: shortstr, no_local: bit, no_ack: bit, exclusive: bit, nowait: bit,
        arguments: table }
    BasicConsumeOk = 60, 21, "basic.consume_ok", false { consumer_tag: shortstr }
    BasicCancel = 60, 30, "basic.cancel", false { consumer_tag: shortstr, nowait: bit }
    BasicCancelOk = 60, 31, "basic.cancel_ok", false { consumer_tag: shortstr }
    BasicPublish = 60, 40, "basic.publish", true {
        ticket: short, exchange: shortstr, routing_key: shortstr, mandatory: bit, immediate: bit }
    BasicReturn = 60, 50, "basic.return", true {
        reply_code: short, reply_text: shortstr, exchange: shortstr, routing_key: shortstr }
    BasicDeliver = 60, 60, "basic.deliver", true {
        consumer_tag: shortstr, delivery_tag: longlong, redelivered: bit, exchange: shortstr, routing_key: shortstr }
    BasicGet = 60, 70, "basic.get", false { ticket: short, queue: shortstr, no_ack: bit }
    BasicGetOk = 60, 71, "basic.get_ok", true {
        delivery_tag: longlong, redelivered: bit, exchange: shortstr, routing_key: shortstr, message_count: long }
    BasicGetEmpty = 60, 72, "basic.get_empty", false { cluster_id: shortstr }
    BasicAck = 60, 80, "basic.ack", false { delivery_tag: longlong, multiple: bit }
    BasicReject = 60, 90, "basic.reject", false { delivery_tag: longlong, requeue: bit }
    BasicRecoverAsync = 60, 100, "basic.recover_async", false { requeue: bit }
    BasicRecover = 60, 110, "basic.recover", false { requeue: bit }
    BasicRecoverOk = 60, 111, "basic.recover_ok", false {}
    BasicNack = 60, 120, "basic.nack", false { delivery_tag: longlong, multiple: bit, requeue: bit }

    ConfirmSelect = 85, 10, "confirm.select", false { nowait: bit }
    ConfirmSelectOk = 85, 11, "confirm.select_ok", false {}

    TxSelect = 90, 10, "tx.select", false {}
    TxSelectOk = 90, 11, "tx.select_ok", false {}
    TxCommit = 90, 20, "tx.commit", false {}
    TxCommitOk = 90, 21, "tx.commit_ok", false {}
    TxRollback = 90, 30, "tx.rollback", false {}
    TxRollbackOk = 90, 31, "tx.rollback_ok", false {}
}
