//! Frames, written directly to the connection's output buffer.
//!
//! Frames sent per message (deliver, get-ok, return, content, ack, nack) are written directly from borrowed parts; all
//! other methods use [`method`].

use super::wire::Writer;
use super::{
    CLASS_BASIC, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, FRAME_OVERHEAD, Method,
};

/// A heartbeat frame.
pub const HEARTBEAT: [u8; 8] = [FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// Writes a frame whose payload `payload` appends.
fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let [c1, c0] = channel.to_be_bytes();
    out.extend_from_slice(&[kind, c1, c0, 0, 0, 0, 0]);
    payload(out);
    let size = u32::try_from(out.len() - start - 7).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start + 3..start + 7) {
        field.copy_from_slice(&size.to_be_bytes());
    }
    out.push(FRAME_END);
}

/// A method frame.
pub fn method(out: &mut Vec<u8>, channel: u16, method: &Method<'_>) {
    frame(out, FRAME_METHOD, channel, |out| method.encode(out));
}

/// Writes `basic.deliver`; [`content`] must follow. Names are bytes, because other protocols' messages have any.
pub fn deliver(
    out: &mut Vec<u8>,
    channel: u16,
    consumer_tag: &[u8],
    delivery_tag: u64,
    redelivered: bool,
    exchange: &[u8],
    routing_key: &[u8],
) {
    frame(out, FRAME_METHOD, channel, |out| {
        out.extend_from_slice(&[0, 60, 0, 60]);
        let mut writer = Writer::new(out);
        writer.short_bytes(consumer_tag);
        writer.longlong(delivery_tag);
        writer.octet(u8::from(redelivered));
        writer.short_bytes(exchange);
        writer.short_bytes(routing_key);
    });
}

/// Writes `basic.get-ok`; [`content`] must follow.
pub fn get_ok(
    out: &mut Vec<u8>,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    exchange: &[u8],
    routing_key: &[u8],
    message_count: u32,
) {
    frame(out, FRAME_METHOD, channel, |out| {
        out.extend_from_slice(&[0, 60, 0, 71]);
        let mut writer = Writer::new(out);
        writer.longlong(delivery_tag);
        writer.octet(u8::from(redelivered));
        writer.short_bytes(exchange);
        writer.short_bytes(routing_key);
        writer.long(message_count);
    });
}

/// Writes `basic.ack` to a publisher.
pub fn ack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool) {
    let [c1, c0] = channel.to_be_bytes();
    out.extend_from_slice(&[FRAME_METHOD, c1, c0, 0, 0, 0, 13, 0, 60, 0, 80]);
    out.extend_from_slice(&delivery_tag.to_be_bytes());
    out.extend_from_slice(&[u8::from(multiple), FRAME_END]);
}

/// Writes `basic.nack` to a publisher.
pub fn nack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool) {
    let [c1, c0] = channel.to_be_bytes();
    out.extend_from_slice(&[FRAME_METHOD, c1, c0, 0, 0, 0, 13, 0, 60, 0, 120]);
    out.extend_from_slice(&delivery_tag.to_be_bytes());
    out.extend_from_slice(&[u8::from(multiple), FRAME_END]);
}

/// Writes content header and body frames. None is larger than `frame_max`, except the header, which cannot be split.
pub fn content(
    out: &mut Vec<u8>,
    channel: u16,
    frame_max: u32,
    properties: impl FnOnce(&mut Vec<u8>),
    body: &[u8],
) {
    frame(out, FRAME_HEADER, channel, |out| {
        let mut writer = Writer::new(out);
        writer.short(CLASS_BASIC);
        writer.short(0);
        writer.longlong(body.len() as u64);
        properties(writer.out);
    });
    let chunk_bytes_max = (frame_max as usize).saturating_sub(FRAME_OVERHEAD).max(1);
    for chunk in body.chunks(chunk_bytes_max) {
        out.reserve(chunk.len() + FRAME_OVERHEAD);
        frame(out, FRAME_BODY, channel, |out| out.extend_from_slice(chunk));
    }
}
