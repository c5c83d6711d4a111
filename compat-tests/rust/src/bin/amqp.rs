//! lapin against the broker: `amqp URL NAME`. Declares, publishes with confirms, consumes with a prefetch, gives back.

use futures_lite::{StreamExt, future::block_on};
use lapin::options::*;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};

const COUNT: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, name) = (arguments.next().ok_or("URL")?, arguments.next().ok_or("NAME")?);
    block_on(async {
        let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(&name, durable, FieldTable::default()).await?;
        channel
            .exchange_declare(
                &format!("{name}-x"),
                lapin::ExchangeKind::Topic,
                ExchangeDeclareOptions { durable: true, ..Default::default() },
                FieldTable::default(),
            )
            .await?;
        let (exchange, key) = (format!("{name}-x"), "a.*");
        channel.queue_bind(&name, &exchange, key, QueueBindOptions::default(), FieldTable::default()).await?;

        // Published without waiting, then each confirmation asked for.
        let persistent = BasicProperties::default().with_delivery_mode(2).with_message_id("m".into());
        let mut confirms = Vec::new();
        for n in 0..COUNT {
            let body = format!("message {n}");
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let confirm =
                channel.basic_publish(&exchange, "a.b", options, body.as_bytes(), persistent.clone()).await?;
            confirms.push(confirm);
        }
        for confirm in confirms {
            let confirm = confirm.await?;
            assert!(confirm.is_ack() && confirm.take_message().is_none());
        }
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let unroutable =
            channel.basic_publish(&exchange, "c", options, b"x", persistent.clone()).await?.await?;
        assert!(unroutable.take_message().is_some(), "an unroutable message comes back");

        // A consumer that holds ten at a time; the first is given back once and comes again, marked.
        channel.basic_qos(10, BasicQosOptions::default()).await?;
        let mut consumer = channel
            .basic_consume(&name, "tag", BasicConsumeOptions::default(), FieldTable::default())
            .await?;
        let (mut bodies, mut given_back) = (Vec::new(), false);
        while bodies.len() < COUNT {
            let delivery = consumer.next().await.ok_or("the consumer ended")??;
            if !given_back {
                given_back = true;
                delivery.nack(BasicNackOptions { requeue: true, ..Default::default() }).await?;
                continue;
            }
            assert_eq!(delivery.properties.message_id().as_ref().map(|id| id.as_str()), Some("m"));
            if delivery.data == b"message 0" {
                assert!(delivery.redelivered);
            }
            bodies.push(String::from_utf8(delivery.data.clone())?);
            delivery.ack(BasicAckOptions::default()).await?;
        }
        bodies.sort();
        let mut wanted: Vec<String> = (0..COUNT).map(|n| format!("message {n}")).collect();
        wanted.sort();
        assert_eq!(bodies, wanted);
        channel.basic_cancel("tag", BasicCancelOptions::default()).await?;
        assert!(channel.basic_get(&name, BasicGetOptions::default()).await?.is_none());
        channel.queue_delete(&name, QueueDeleteOptions::default()).await?;

        // What is not there ends the channel with its code, and the connection goes on.
        let other = connection.create_channel().await?;
        let refused = channel.queue_declare(
            &name,
            QueueDeclareOptions { passive: true, ..Default::default() },
            FieldTable::default(),
        );
        assert!(
            refused.await.unwrap_err().to_string().contains("NOT-FOUND") || !channel.status().connected()
        );
        other.queue_declare(&name, durable, FieldTable::default()).await?;
        other.queue_delete(&name, QueueDeleteOptions::default()).await?;
        connection.close(200, "done").await?;
        println!("everything as it should be");
        Ok(())
    })
}
