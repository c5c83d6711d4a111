//! The framer: finds whole frames in a byte stream (AMQP 0-9-1, section 2.3.5).
//!
//! A frame's size is checked against the negotiated `frame_max` as soon as its seven header bytes are received, before
//! any more of it is buffered.

use super::{FRAME_END, FRAME_OVERHEAD};

/// Bytes by which a frame may exceed `frame_max`. Many clients do not count the frame's own bytes, and RabbitMQ accepts
/// their frames.
pub const SIZE_FUDGE: u32 = FRAME_OVERHEAD as u32;

/// A frame within the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type octet, which may be unknown.
    pub kind: u8,
    /// The channel.
    pub channel: u16,
    /// The bytes between header and end octet.
    pub payload: &'a [u8],
}

/// The result of looking for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// A whole frame, and its size in the input.
    Frame(Frame<'a>, usize),
    /// Less than a frame. A frame needs at least this many bytes in all.
    NeedMore(usize),
}

/// A framing error: no further frame of the connection can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is larger than the negotiated size.
    #[error("frame of {payload_bytes} bytes where {payload_bytes_max} are the most")]
    TooLarge {
        /// The type octet.
        kind: u8,
        /// The channel.
        channel: u16,
        /// The size in the frame's header.
        payload_bytes: u32,
        /// The largest size allowed.
        payload_bytes_max: u32,
    },
    /// The frame does not end with the end octet.
    #[error("frame ends in {end}")]
    BadEnd {
        /// The type octet.
        kind: u8,
        /// The channel.
        channel: u16,
        /// The octet in its place.
        end: u8,
    },
}

/// Finds the frame at the start of `input`. `frame_max` counts the whole frame, as in `connection.tune`.
pub fn next(input: &[u8], frame_max: u32) -> Result<Next<'_>, FrameError> {
    let Some((&[kind, c1, c0, s3, s2, s1, s0], rest)) = input.split_first_chunk::<7>() else {
        return Ok(Next::NeedMore(FRAME_OVERHEAD));
    };
    let channel = u16::from_be_bytes([c1, c0]);
    let payload_bytes = u32::from_be_bytes([s3, s2, s1, s0]);
    let payload_bytes_max = frame_max.saturating_sub(FRAME_OVERHEAD as u32);
    if payload_bytes > payload_bytes_max.saturating_add(SIZE_FUDGE) {
        return Err(FrameError::TooLarge { kind, channel, payload_bytes, payload_bytes_max });
    }
    let size = payload_bytes as usize;
    let Some((payload, rest)) = rest.split_at_checked(size) else {
        return Ok(Next::NeedMore(size + FRAME_OVERHEAD));
    };
    match rest.first() {
        None => Ok(Next::NeedMore(size + FRAME_OVERHEAD)),
        Some(&FRAME_END) => Ok(Next::Frame(Frame { kind, channel, payload }, size + FRAME_OVERHEAD)),
        Some(&end) => Err(FrameError::BadEnd { kind, channel, end }),
    }
}
