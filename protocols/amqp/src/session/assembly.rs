//! Content assembly: method, header and body frames become a whole message (AMQP 0-9-1, section 4.2.6).
//!
//! A body in one frame is not copied. The buffer of a larger body grows with the bytes received, not with the size that
//! the header claims. The channel keeps and reuses the buffers.

use std::sync::Arc;

use inver_storage::{Held, Memory, Share};

use crate::codec::{CLASS_BASIC, ContentHeader};
use crate::error::Refusal;
use crate::map::Publish;

/// Bytes of the body buffer that a channel keeps between messages.
const BODY_BYTES_KEPT: usize = 64 * 1024;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A method is expected.
    #[default]
    Method,
    /// A content header is expected.
    Header,
    /// A body frame is expected.
    Body { remaining: u64 },
}

/// A message in the course of assembly.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    state: State,
    mandatory: bool,
    exchange: String,
    routing_key: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
    /// There while the beginning of a large body waits for its rest.
    held: Option<Held>,
}

/// `basic.publish`, for error replies.
const PUBLISH: (u16, u16) = (CLASS_BASIC, 40);

impl Assembly {
    /// Checks that a method frame is expected.
    pub(super) fn method(&self) -> Result<(), Refusal> {
        match self.state {
            State::Method => Ok(()),
            State::Header => Err(header_expected()),
            State::Body { .. } => Err(body_expected()),
        }
    }

    /// Starts a message with its `basic.publish`.
    pub(super) fn publish(&mut self, exchange: &str, routing_key: &str, mandatory: bool) {
        self.exchange.clear();
        self.exchange.push_str(exchange);
        self.routing_key.clear();
        self.routing_key.extend_from_slice(routing_key.as_bytes());
        self.mandatory = mandatory;
        self.state = State::Header;
    }

    /// Adds the content header. A message without a body is then complete.
    pub(super) fn header(
        &mut self,
        header: &ContentHeader<'_>,
        message_bytes_max: u64,
    ) -> Result<Option<Publish<'_>>, Refusal> {
        match self.state {
            State::Header => {}
            State::Method => return Err(method_expected()),
            State::Body { .. } => return Err(body_expected()),
        }
        if header.class != CLASS_BASIC {
            return Err(Refusal::unexpected_frame(format_args!(
                "expected content header for class {CLASS_BASIC}, got one for class {} instead",
                header.class
            ))
            .at(PUBLISH));
        }
        if header.weight != 0 {
            return Err(header_expected());
        }
        if header.body_bytes > message_bytes_max {
            return Err(Refusal::precondition_failed(format_args!(
                "message size {} is larger than configured max size {message_bytes_max}",
                header.body_bytes
            ))
            .at(PUBLISH));
        }
        self.properties.clear();
        self.properties.extend_from_slice(header.properties);
        self.body.clear();
        if header.body_bytes == 0 {
            self.state = State::Method;
            return Ok(Some(self.complete(&[])));
        }
        self.state = State::Body { remaining: header.body_bytes };
        Ok(None)
    }

    /// Adds a body frame. The last one completes the message.
    pub(super) fn body<'a>(
        &'a mut self,
        payload: &'a [u8],
        memory: &Arc<Memory>,
    ) -> Result<Option<Publish<'a>>, Refusal> {
        let State::Body { remaining } = self.state else {
            return Err(if self.state == State::Method { method_expected() } else { header_expected() });
        };
        let Some(remaining) = remaining.checked_sub(payload.len() as u64) else {
            return Err(Refusal::frame_error("content body frame exceeds remaining content size").at(PUBLISH));
        };
        if remaining > 0 {
            self.hold(payload.len(), memory)?;
            self.body.extend_from_slice(payload);
            self.state = State::Body { remaining };
            return Ok(None);
        }
        self.state = State::Method;
        if self.body.is_empty() {
            return Ok(Some(self.complete(payload)));
        }
        self.body.extend_from_slice(payload);
        Ok(Some(self.complete(&self.body)))
    }

    /// Accounts for a part of the body that is to be kept.
    fn hold(&mut self, more: usize, memory: &Arc<Memory>) -> Result<(), Refusal> {
        let bytes = self.body.capacity().max(self.body.len() + more);
        if bytes > BODY_BYTES_KEPT {
            let held = self.held.get_or_insert_with(|| memory.holder(Share::Input));
            held.set(bytes).map_err(|error| Refusal::resource_error(error).at(PUBLISH))?;
        }
        Ok(())
    }

    fn complete<'a>(&'a self, body: &'a [u8]) -> Publish<'a> {
        Publish {
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            mandatory: self.mandatory,
            properties: &self.properties,
            body,
        }
    }

    /// Frees the buffer of a large message.
    pub(super) fn trim(&mut self) {
        if self.state == State::Method && self.body.capacity() > BODY_BYTES_KEPT {
            self.body = Vec::new();
            self.held = None;
        }
    }
}

fn method_expected() -> Refusal {
    Refusal::unexpected_frame("expected method frame, got non method frame instead")
}

fn header_expected() -> Refusal {
    Refusal::unexpected_frame(format_args!(
        "expected content header for class {CLASS_BASIC}, got non content header frame instead"
    ))
    .at(PUBLISH)
}

fn body_expected() -> Refusal {
    Refusal::unexpected_frame("expected content body, got non content body frame instead").at(PUBLISH)
}

#[cfg(test)]
mod tests {
    use inver_storage::Gate;

    use super::*;

    fn memory() -> Arc<Memory> {
        Memory::new(10 << 20, Arc::new(Gate::default()))
    }

    fn header(body_bytes: u64) -> ContentHeader<'static> {
        ContentHeader { class: CLASS_BASIC, weight: 0, body_bytes, properties: &[0x10, 0, 2] }
    }

    #[test]
    fn a_body_is_assembled_from_one_or_several_frames() {
        let (mut assembly, memory) = (Assembly::default(), memory());
        for frames in [vec![b"hello".as_slice()], vec![b"he", b"", b"llo"]] {
            assembly.publish("ex", "key", true);
            assert!(assembly.method().is_err());
            assert_eq!(assembly.header(&header(5), 100), Ok(None));
            let (last, first) = frames.split_last().unwrap();
            for frame in first {
                assert_eq!(assembly.body(frame, &memory), Ok(None));
            }
            let publish = assembly.body(last, &memory).unwrap().unwrap();
            assert_eq!(
                (publish.exchange, publish.routing_key, publish.body),
                ("ex", &b"key"[..], &b"hello"[..])
            );
            assert_eq!((publish.properties, publish.mandatory), (&[0x10u8, 0, 2][..], true));
            assert!(assembly.method().is_ok());
        }
    }

    #[test]
    fn an_empty_message_is_complete_with_its_header() {
        let mut assembly = Assembly::default();
        assembly.publish("", "key", false);
        assert_eq!(assembly.header(&header(0), 100).unwrap().unwrap().body, b"");
        assert!(assembly.method().is_ok());
    }

    #[test]
    fn frames_out_of_order_are_refused() {
        let (mut assembly, memory) = (Assembly::default(), memory());
        let code = |result: Result<Option<Publish<'_>>, Refusal>| result.unwrap_err().code.number();
        assert_eq!(code(assembly.body(b"x", &memory)), 505);
        assert_eq!(code(assembly.header(&header(1), 100)), 505);
        assembly.publish("", "", false);
        assert_eq!(code(assembly.body(b"x", &memory)), 505);
        assert_eq!(code(assembly.header(&ContentHeader { class: 10, ..header(1) }, 100)), 505);
        assert_eq!(code(assembly.header(&header(101), 100)), 406);
        assert_eq!(assembly.header(&header(3), 100), Ok(None));
        assert_eq!(code(assembly.body(b"abcd", &memory)), 501);
    }

    #[test]
    fn the_buffer_of_a_large_body_is_freed() {
        let (mut assembly, memory) = (Assembly::default(), memory());
        assembly.publish("", "", false);
        assembly.header(&header(1 << 20), 1 << 20).unwrap();
        let half = vec![0; 1 << 19];
        assembly.body(&half, &memory).unwrap();
        assert_eq!(assembly.body(&half, &memory).unwrap().unwrap().body.len(), 1 << 20);
        assembly.trim();
        assert_eq!(assembly.body.capacity(), 0);
    }

    #[test]
    fn beginnings_of_bodies_are_accounted_for() {
        let (mut assembly, memory) = (Assembly::default(), memory());
        assembly.publish("", "", false);
        assembly.header(&header(16 << 20), 16 << 20).unwrap();
        let mebibyte = vec![0; 1 << 20];
        assembly.body(&mebibyte, &memory).unwrap();
        assert_eq!(memory.used(Share::Input), 1 << 20);
        let refused = (0..15).find_map(|_| assembly.body(&mebibyte, &memory).err()).unwrap();
        assert_eq!(refused.code.number(), 506);
        assert!(memory.used(Share::Input) <= memory.limit(Share::Input));
        drop(assembly);
        assert_eq!(memory.used(Share::Input), 0);
    }
}
