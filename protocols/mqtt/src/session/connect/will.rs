//! The will of a CONNECT as the broker stores it (section 3.1.2.5).

use inver_broker::HeaderWriter;
use inver_storage::batch::BatchBuilder;

use crate::codec::{DecodeError, Qos, Will};
use crate::config::AmqpNames;
use crate::map::{Author, Incoming, ORIGIN};

/// The will as a batch with its address, delay and expiry.
pub(super) fn stored(
    will: &Will<'_>,
    client_id: &str,
    user: Option<&str>,
    now_ms: i64,
    names: AmqpNames,
) -> Result<inver_broker::Will, DecodeError> {
    let incoming = Incoming::read(will.properties, names)?;
    let mut writer = HeaderWriter::default();
    let author = Author { client_id, user };
    let headers =
        incoming.without_expiry().headers(&mut writer, author, will.topic, will.qos, will.retain, now_ms);
    let mut batch = BatchBuilder::new(0);
    batch.push_with(now_ms, None, headers.count as usize, headers.bytes, Some(will.payload));
    Ok(inver_broker::Will {
        address: will.topic.as_bytes().to_vec(),
        batch: batch.finish().bytes().to_vec(),
        delay_s: incoming.will_delay_s,
        // The interval runs from the will's publication (section 3.1.3.2.4).
        expiry_s: incoming.expiry_s,
        retain: will.retain,
        guaranteed: will.qos != Qos::AtMostOnce,
        origin: ORIGIN.to_owned(),
    })
}
