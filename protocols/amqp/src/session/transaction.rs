//! The publishes and acknowledgements that a transaction holds until its commit.
//!
//! Unlike in RabbitMQ, those of a commit are one entry of the log, and so atomic across queues. Rejections follow the
//! entry.

use super::unacked::{Disposition, UnackedDelivery};
use crate::error::Refusal;
use crate::map::Publish;

/// The contents of a channel's transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) publishes: Vec<HeldPublish>,
    bytes: usize,
    pub(super) dispositions: Vec<(Disposition, UnackedDelivery)>,
}

#[derive(Debug)]
pub(super) struct HeldPublish {
    pub(super) exchange: String,
    pub(super) routing_key: Vec<u8>,
    pub(super) mandatory: bool,
    pub(super) properties: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// Bytes of a held publish beside its strings, properties and body.
const HELD_PUBLISH_BYTES: usize = size_of::<HeldPublish>();

impl Transaction {
    /// Holds a publish for the commit. `held_bytes` are those of all transactions of the connection.
    pub(super) fn hold(
        &mut self,
        publish: &Publish<'_>,
        bytes_max: usize,
        held_bytes: &mut usize,
    ) -> Result<(), Refusal> {
        let bytes = HELD_PUBLISH_BYTES
            + publish.exchange.len()
            + publish.routing_key.len()
            + publish.properties.len()
            + publish.body.len();
        if self.bytes + bytes > bytes_max {
            return Err(Refusal::precondition_failed(format_args!(
                "limit reached: at most {bytes_max} bytes of messages per transaction"
            )));
        }
        self.bytes += bytes;
        *held_bytes += bytes;
        self.publishes.push(HeldPublish {
            exchange: publish.exchange.to_owned(),
            routing_key: publish.routing_key.to_vec(),
            mandatory: publish.mandatory,
            properties: publish.properties.to_vec(),
            body: publish.body.to_vec(),
        });
        Ok(())
    }

    /// Its publishes are held no longer.
    pub(super) fn forget(&self, held_bytes: &mut usize) {
        *held_bytes -= self.bytes;
    }
}
