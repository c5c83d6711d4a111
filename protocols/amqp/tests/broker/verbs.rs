//! Short forms of frequent methods, on channel 1.

use std::time::Duration;

use tokio::time::Instant;

use inver_amqp::codec::Method;
use inver_amqp::codec::table::Table;

use crate::client::{Client, Message, TIMEOUT};
use crate::server::Server;

/// A declaration of a queue.
#[derive(Clone, Copy)]
pub(crate) struct Declare<'a> {
    pub(crate) queue: &'a str,
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: Table<'a>,
}

/// The plainest declaration of the queue `q`.
pub(crate) const PLAIN: Declare<'static> = Declare {
    queue: "q",
    passive: false,
    durable: false,
    exclusive: false,
    auto_delete: false,
    arguments: Table::EMPTY,
};

impl<'a> Declare<'a> {
    pub(crate) fn method(&self) -> Method<'a> {
        Method::QueueDeclare {
            ticket: 0,
            queue: self.queue,
            passive: self.passive,
            durable: self.durable,
            exclusive: self.exclusive,
            auto_delete: self.auto_delete,
            nowait: false,
            arguments: self.arguments,
        }
    }

    /// Sends it; returns the reply in `Debug` form.
    pub(crate) fn by(&self, client: &mut Client) -> String {
        client.call(&self.method())
    }
}

/// A declaration of a transient exchange.
pub(crate) fn declare_exchange<'a>(exchange: &'a str, kind: &'a str, arguments: Table<'a>) -> Method<'a> {
    exchange_declare(exchange, kind, false, arguments)
}

/// A declaration of a durable exchange.
pub(crate) fn declare_durable_exchange<'a>(exchange: &'a str, kind: &'a str) -> Method<'a> {
    exchange_declare(exchange, kind, true, Table::EMPTY)
}

fn exchange_declare<'a>(exchange: &'a str, kind: &'a str, durable: bool, arguments: Table<'a>) -> Method<'a> {
    Method::ExchangeDeclare {
        ticket: 0,
        exchange,
        kind,
        passive: false,
        durable,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments,
    }
}

/// Expects that a client of its own gets a reply with this text to what `act` does.
pub(crate) fn refused(server: &Server, act: impl FnOnce(&mut Client) -> String, text: &str) {
    let method = act(&mut server.client());
    assert!(method.contains(text), "«{text}» is not in {method}");
}

impl Client {
    /// Sends a method; returns the next method in `Debug` form.
    pub(crate) fn call(&mut self, method: &Method<'_>) -> String {
        self.send(1, method);
        self.method()
    }

    pub(crate) fn declare(&mut self, queue: &str) -> String {
        self.declare_with(queue, false, Table::default())
    }

    pub(crate) fn declare_with(&mut self, queue: &str, durable: bool, arguments: Table<'_>) -> String {
        self.send(1, &Declare { queue, durable, arguments, ..PLAIN }.method());
        self.expect("QueueDeclareOk")
    }

    pub(crate) fn declare_exchange(&mut self, exchange: &str, kind: &str) {
        self.send(1, &declare_exchange(exchange, kind, Table::EMPTY));
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

    /// Sends `basic.get`; the reply is read later.
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
        self.put_back(got.channel, &method);
        Some(self.message())
    }

    /// The counts in `queue.declare-ok` of a passive declaration.
    pub(crate) fn inspect(&mut self, queue: &str) -> (u32, u32) {
        self.send(1, &Declare { queue, passive: true, ..PLAIN }.method());
        let got = self.next().unwrap();
        match Method::decode(&got.payload).unwrap() {
            Method::QueueDeclareOk { message_count, consumer_count, .. } => (message_count, consumer_count),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a queue has these counts.
    pub(crate) fn await_depth(&mut self, queue: &str, messages: u32, consumers: u32) {
        let since = Instant::now();
        while self.inspect(queue) != (messages, consumers) {
            assert!(since.elapsed() < TIMEOUT, "{:?} is not {messages}, {consumers}", self.inspect(queue));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
