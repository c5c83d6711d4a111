//! Content assembly: method, header and body frames become a whole message (AMQP 0-9-1, section 4.2.6).
//!
//! A body in one frame is not copied. The buffer of a larger body grows with the bytes received, not with the size that
//! the header claims. The connection keeps one such buffer, and counts what its channels hold.

use crate::codec::{CLASS_BASIC, ContentHeader};
use crate::error::Refusal;
use crate::map::Publish;

/// Bytes of the body buffer that a connection keeps between messages.
const BODY_BYTES_KEPT: usize = 64 * 1024;

/// What the channels of a connection share to assemble bodies.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    /// The buffer of an earlier body, empty.
    spare: Vec<u8>,
    /// Bytes of bodies whose rest has not come.
    unfinished_bytes: usize,
}

impl Bodies {
    /// Bytes of bodies whose rest has not come, over all channels.
    pub(super) fn unfinished_bytes(&self) -> usize {
        self.unfinished_bytes
    }
}

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
        bodies: &mut Bodies,
    ) -> Result<Option<Publish<'a>>, Refusal> {
        let State::Body { remaining } = self.state else {
            return Err(if self.state == State::Method { method_expected() } else { header_expected() });
        };
        let Some(remaining) = remaining.checked_sub(payload.len() as u64) else {
            return Err(Refusal::frame_error("content body frame exceeds remaining content size").at(PUBLISH));
        };
        if remaining > 0 {
            if self.body.capacity() == 0 {
                self.body = std::mem::take(&mut bodies.spare);
            }
            self.body.extend_from_slice(payload);
            bodies.unfinished_bytes += payload.len();
            self.state = State::Body { remaining };
            return Ok(None);
        }
        self.state = State::Method;
        if self.body.is_empty() {
            return Ok(Some(self.complete(payload)));
        }
        bodies.unfinished_bytes -= self.body.len();
        self.body.extend_from_slice(payload);
        Ok(Some(self.complete(&self.body)))
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

    /// Gives the buffer of a message that was assembled to the connection, unless it is large.
    pub(super) fn trim(&mut self, bodies: &mut Bodies) {
        if self.state == State::Method && self.body.capacity() > 0 {
            let mut body = std::mem::take(&mut self.body);
            body.clear();
            if body.capacity() <= BODY_BYTES_KEPT {
                bodies.spare = body;
            }
        }
    }

    /// Drops what was received of a message.
    pub(super) fn clear(&mut self, bodies: &mut Bodies) {
        if self.state != State::Method {
            bodies.unfinished_bytes -= self.body.len();
        }
        *self = Assembly::default();
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
    use super::*;

    fn header(body_bytes: u64) -> ContentHeader<'static> {
        ContentHeader { class: CLASS_BASIC, weight: 0, body_bytes, properties: &[0x10, 0, 2] }
    }

    #[test]
    fn a_body_is_assembled_from_one_or_several_frames() {
        let (mut assembly, mut bodies) = (Assembly::default(), Bodies::default());
        for frames in [vec![b"hello".as_slice()], vec![b"he", b"", b"llo"]] {
            assembly.publish("ex", "key", true);
            assert!(assembly.method().is_err());
            assert_eq!(assembly.header(&header(5), 100), Ok(None));
            let (last, first) = frames.split_last().unwrap();
            for frame in first {
                assert_eq!(assembly.body(frame, &mut bodies), Ok(None));
            }
            let publish = assembly.body(last, &mut bodies).unwrap().unwrap();
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
        let (mut assembly, mut bodies) = (Assembly::default(), Bodies::default());
        let code = |result: Result<Option<Publish<'_>>, Refusal>| result.unwrap_err().code.number();
        assert_eq!(code(assembly.body(b"x", &mut bodies)), 505);
        assert_eq!(code(assembly.header(&header(1), 100)), 505);
        assembly.publish("", "", false);
        assert_eq!(code(assembly.body(b"x", &mut bodies)), 505);
        assert_eq!(code(assembly.header(&ContentHeader { class: 10, ..header(1) }, 100)), 505);
        assert_eq!(code(assembly.header(&header(101), 100)), 406);
        assert_eq!(assembly.header(&header(3), 100), Ok(None));
        assert_eq!(code(assembly.body(b"abcd", &mut bodies)), 501);
    }

    #[test]
    fn the_buffer_of_a_body_is_reused_unless_it_is_large() {
        let (mut assembly, mut bodies) = (Assembly::default(), Bodies::default());
        for (bytes, kept) in [(1 << 15, true), (1 << 20, false)] {
            assembly.publish("", "", false);
            assembly.header(&header(bytes), 1 << 20).unwrap();
            let half = vec![0; bytes as usize / 2];
            assembly.body(&half, &mut bodies).unwrap();
            assert_eq!(bodies.unfinished_bytes(), half.len());
            assert_eq!(assembly.body(&half, &mut bodies).unwrap().unwrap().body.len() as u64, bytes);
            assembly.trim(&mut bodies);
            assert_eq!((assembly.body.capacity(), bodies.spare.capacity() > 0), (0, kept));
            assert_eq!(bodies.unfinished_bytes(), 0);
        }
    }

    #[test]
    fn beginnings_of_bodies_are_counted_over_all_channels() {
        let mut bodies = Bodies::default();
        let mut channels = [Assembly::default(), Assembly::default()];
        for (number, assembly) in channels.iter_mut().enumerate() {
            assembly.publish("", "", false);
            assembly.header(&header(100), 100).unwrap();
            assembly.body(&[0; 60], &mut bodies).unwrap();
            assert_eq!(bodies.unfinished_bytes(), 60 * (number + 1));
        }
        let [closed, goes_on] = &mut channels;
        closed.clear(&mut bodies);
        closed.clear(&mut bodies);
        assert_eq!(bodies.unfinished_bytes(), 60);
        assert!(goes_on.body(&[0; 40], &mut bodies).unwrap().is_some());
        goes_on.clear(&mut bodies);
        assert_eq!(bodies.unfinished_bytes(), 0);
    }
}
