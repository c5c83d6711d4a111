//! WebSocket as a byte stream: binary messages in and out, whose boundaries have no meaning.
//!
//! Data is carried in binary frames [MQTT-6.0.0-1], packets need not align with frames [MQTT-6.0.0-2], and the
//! subprotocol is `mqtt` [MQTT-6.0.0-3, MQTT-6.0.0-4]. A text frame or another violation closes the connection with the
//! status code of RFC 6455, 7.4.1.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::pieces::{PIECE_BYTES_MAX, Pieces};

/// Payload of the largest outgoing message.
const MESSAGE_OUT_BYTES_MAX: usize = 64 * 1024;
/// Bytes that the library buffers for writing: one message, and pongs. Beyond it only the most recent ping is answered
/// (RFC 6455, 5.5.3), which bounds the cost of a client that sends pings and reads nothing.
const UNWRITTEN_BYTES_MAX: usize = 2 * MESSAGE_OUT_BYTES_MAX;
/// Bytes beside the payload of the largest message: topic, properties, framing.
const MESSAGE_ENVELOPE_BYTES_MAX: usize = 1 << 20;

/// Handshake settings of one listener.
#[derive(Clone)]
pub(super) struct Form {
    /// The path of requests; any if none.
    path: Option<Arc<str>>,
    subprotocols: &'static [&'static str],
    config: WebSocketConfig,
    frame_bytes_max: usize,
}

impl Form {
    /// For requests with this path, or with any if none.
    pub(super) fn new(
        path: Option<&str>,
        subprotocols: &'static [&'static str],
        message_bytes_max: usize,
    ) -> Form {
        let max = message_bytes_max.saturating_add(MESSAGE_ENVELOPE_BYTES_MAX);
        let config = WebSocketConfig::default()
            .max_message_size(Some(PIECE_BYTES_MAX))
            .max_frame_size(Some(PIECE_BYTES_MAX))
            .read_buffer_size(8 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(UNWRITTEN_BYTES_MAX);
        Form { path: path.map(Into::into), subprotocols, config, frame_bytes_max: max }
    }

    /// Performs the WebSocket handshake.
    #[expect(clippy::result_large_err, reason = "the signature is the library's")]
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<WebSocketIo<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let callback = |request: &Request, response: Response| match self
            .path
            .as_deref()
            .filter(|path| request.uri().path() != *path)
        {
            Some(_) => Err(refusal(StatusCode::NOT_FOUND, "there is nothing at this path\n".into())),
            None => choose(self.subprotocols, request, response),
        };
        let stream = Pieces::new(stream, self.frame_bytes_max);
        let mut socket =
            accept_hdr_async_with_config(stream, callback, Some(self.config)).await.map_err(into_io)?;
        socket.get_mut().start();
        Ok(WebSocketIo { socket, unread: Bytes::new(), unflushed: false })
    }
}

#[expect(clippy::result_large_err, reason = "the signature is the library's")]
fn choose(
    known: &[&'static str],
    request: &Request,
    mut response: Response,
) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&str> = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    match known.iter().find(|name| offered.contains(name)) {
        Some(name) => {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
            Ok(response)
        }
        None => {
            let text = format!("the subprotocol must be one of: {}\n", known.join(", "));
            Err(refusal(StatusCode::BAD_REQUEST, text))
        }
    }
}

fn refusal(status: StatusCode, text: String) -> ErrorResponse {
    let mut refusal = ErrorResponse::new(Some(text));
    *refusal.status_mut() = status;
    refusal
}

fn into_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::BrokenPipe.into()
        }
        other => io::Error::other(other),
    }
}

/// The byte stream.
pub(super) struct WebSocketIo<S> {
    socket: WebSocketStream<Pieces<S>>,
    unread: Bytes,
    /// Whether written bytes are not flushed yet.
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketIo<S> {
    /// Flushes written bytes as far as possible without waiting.
    fn push(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx)
        {
            flushed.map_err(into_io)?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Sends a close frame with the status code, as far as the socket accepts it at once, and returns the error: the
    /// broker does not wait for a client that violates the protocol.
    fn refuse(&mut self, code: CloseCode, error: io::Error, cx: &mut Context<'_>) -> io::Error {
        let frame = CloseFrame { code, reason: error.to_string().into() };
        let mut socket = Pin::new(&mut self.socket);
        if let Poll::Ready(Ok(())) = socket.as_mut().poll_ready(cx)
            && socket.as_mut().start_send(Message::Close(Some(frame))).is_ok()
        {
            let _best_effort = socket.poll_flush(cx);
        }
        error
    }
}

/// The status code for a protocol violation; none where the connection is already gone.
fn status(error: &tungstenite::Error) -> Option<CloseCode> {
    match error {
        tungstenite::Error::Capacity(_) => Some(CloseCode::Size),
        tungstenite::Error::Utf8(_) => Some(CloseCode::Invalid),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        tungstenite::Error::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.push(cx)?;
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Text(_))) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "a text frame [MQTT-6.0.0-1]");
                    return Poll::Ready(Err(self.refuse(CloseCode::Unsupported, error, cx)));
                }
                // Answered by the library with the next flush.
                Some(Ok(_)) => self.unflushed = true,
                Some(Err(error)) => {
                    let code = status(&error);
                    let error = into_io(error);
                    return Poll::Ready(Err(match code {
                        Some(code) => self.refuse(code, error, cx),
                        None => error,
                    }));
                }
            }
            self.push(cx)?;
        }
        let count = self.unread.len().min(buf.remaining());
        if let Some(bytes) = self.unread.get(..count) {
            buf.put_slice(bytes);
        }
        self.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.unflushed {
            // Pongs may have filled the buffer.
            ready!(self.as_mut().poll_flush(cx))?;
        }
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(into_io)?;
        let chunk = bytes.get(..MESSAGE_OUT_BYTES_MAX).unwrap_or(bytes);
        let message = Message::Binary(Bytes::copy_from_slice(chunk));
        Pin::new(&mut self.socket).start_send(message).map_err(into_io)?;
        self.unflushed = true;
        self.push(cx)?;
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(into_io)?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(into_io(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";

    /// A masked frame of a client, the mask being zeros.
    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        assert!(length < 126);
        [&[0x80 | kind, 0x80 | length, 0, 0, 0, 0], payload].concat()
    }

    /// The status code of the close frame that a client receives after these bytes.
    async fn close_code(bytes: &[u8]) -> Option<u16> {
        let (mut client, server) = duplex(1 << 20);
        let serving = tokio::spawn(async move {
            let mut io = Form::new(None, &["mqtt"], 1024).accept(server).await.unwrap();
            let error = io.read_u8().await.unwrap_err();
            // As a protocol closes a connection that failed.
            let _gone = io.shutdown().await;
            error
        });
        client.write_all(UPGRADE).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(client.read_u8().await.unwrap());
        }
        client.write_all(bytes).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), 0x88, "a close frame");
        let length = client.read_u8().await.unwrap();
        let code = if length >= 2 { Some(client.read_u16().await.unwrap()) } else { None };
        drop(client);
        serving.await.unwrap();
        code
    }

    #[tokio::test]
    async fn a_protocol_violation_is_answered_with_its_status_code() {
        assert_eq!(close_code(&frame(1, b"text")).await, Some(1003));
        assert_eq!(close_code(&[0x82, 0x01, b'x']).await, Some(1002), "not masked");
        assert_eq!(close_code(&[0xc2, 0x81, 0, 0, 0, 0, b'x']).await, Some(1002), "a reserved bit");
        let mut huge = vec![0x82, 0xff];
        huge.extend_from_slice(&(1u64 << 40).to_be_bytes());
        huge.extend_from_slice(&[0; 4]);
        assert_eq!(close_code(&huge).await, Some(1009));
    }

    /// A frame of a client with a mask.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        const MASK: [u8; 4] = [0x12, 0xc4, 0x07, 0x99];
        let mut frame = vec![first, 0xff];
        frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        frame.extend_from_slice(&MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// What the broker reads of these frames, `count` bytes.
    async fn received(frames: Vec<u8>, count: usize) -> Vec<u8> {
        let (mut client, server) = duplex(1 << 22);
        client.write_all(UPGRADE).await.unwrap();
        let mut io = Form::new(None, &["mqtt"], 1 << 22).accept(server).await.unwrap();
        client.write_all(&frames).await.unwrap();
        let mut bytes = vec![0; count];
        let read = io.read_exact(&mut bytes);
        tokio::time::timeout(std::time::Duration::from_secs(60), read).await.unwrap().unwrap();
        bytes
    }

    #[tokio::test]
    async fn the_bytes_of_a_frame_are_passed_on_before_it_is_whole() {
        let payload: Vec<u8> = (0..1 << 20).map(|number: u32| number as u8).collect();
        let mut frame = masked(0x82, &payload);
        frame.truncate(100_000);
        assert_eq!(received(frame, 98_304).await, payload[..98_304]);
        // Nor are fragments kept until the last one.
        let fragment = masked(0x02, &payload[..99]);
        assert_eq!(received(fragment, 99).await, payload[..99]);
    }

    #[tokio::test]
    async fn frames_of_any_length_and_fragments_carry_the_same_bytes() {
        let payload: Vec<u8> = (0..200_003u32).map(|number| (number / 7) as u8).collect();
        let mut frames = Vec::new();
        let mut at = 0;
        for length in [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_535, 65_536] {
            frames.extend(masked(0x82, &payload[at..at + length]));
            at += length;
        }
        frames.extend(masked(0x02, &payload[at..at + 7]));
        frames.extend(frame(9, b"between"));
        frames.extend(masked(0x00, &payload[at + 7..at + 19_000]));
        frames.extend(masked(0x80, &payload[at + 19_000..]));
        assert_eq!(received(frames, payload.len()).await, payload);
    }

    #[tokio::test]
    async fn fragments_out_of_order_are_violations() {
        assert_eq!(close_code(&frame(0, b"x")).await, Some(1002), "a continuation of nothing");
        let text = [0x01, 0x81, 0, 0, 0, 0, b'x', 0x82, 0x81, 0, 0, 0, 0, b'x'];
        assert_eq!(close_code(&text).await, Some(1002), "a message within one of text");
        let (mut client, server) = duplex(1 << 16);
        client.write_all(UPGRADE).await.unwrap();
        let mut io = Form::new(None, &["mqtt"], 1024).accept(server).await.unwrap();
        client.write_all(&masked(0x02, b"x")).await.unwrap();
        client.write_all(&masked(0x82, b"y")).await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'x');
        assert!(io.read_u8().await.is_err(), "a message within one");
    }

    #[tokio::test]
    async fn only_the_path_of_the_listener_is_accepted() {
        for (path, accepted) in [("/mqtt", true), ("/mqtt?token=x", true), ("/", false), ("/mqtt/", false)] {
            let (mut client, server) = duplex(1 << 20);
            let serving = tokio::spawn(async move {
                Form::new(Some("/mqtt"), &["mqtt"], 1024).accept(server).await.is_ok()
            });
            let request = String::from_utf8_lossy(UPGRADE).replace("/mqtt HTTP", &format!("{path} HTTP"));
            client.write_all(request.as_bytes()).await.unwrap();
            let mut status = [0; 12];
            client.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, if accepted { b"HTTP/1.1 101" } else { b"HTTP/1.1 404" }, "{path}");
            assert_eq!(serving.await.unwrap(), accepted);
        }
    }

    #[tokio::test]
    async fn pongs_for_a_client_that_reads_nothing_are_bounded() {
        const PINGS: u32 = 20_000;
        let (mut client, server) = duplex(1024);
        let serving = tokio::spawn(async move {
            let mut io = Form::new(None, &["mqtt"], 1 << 20).accept(server).await.unwrap();
            let mut byte = [0];
            io.read_exact(&mut byte).await.unwrap();
            // A message larger than the free part of the buffer is still sent.
            io.write_all(&[7; 100_000]).await.unwrap();
            io.flush().await.unwrap();
            io
        });
        client.write_all(UPGRADE).await.unwrap();
        let mut answer = vec![0; 4096];
        let mut have = 0;
        while !answer[..have].ends_with(b"\r\n\r\n") {
            have += client.read(&mut answer[have..]).await.unwrap();
        }
        for number in 0..PINGS {
            let mut payload = [0; 125];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            client.write_all(&frame(9, &payload)).await.unwrap();
        }
        client.write_all(&frame(2, b"x")).await.unwrap();
        let (mut pongs, mut data, mut last) = (0, 0, 0);
        while data < 100_000 {
            let kind = client.read_u8().await.unwrap();
            let length = match client.read_u8().await.unwrap() {
                126 => usize::from(client.read_u16().await.unwrap()),
                127 => usize::try_from(client.read_u64().await.unwrap()).unwrap(),
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            client.read_exact(&mut payload).await.unwrap();
            if kind == 0x8a {
                pongs += 1;
                last = u32::from_be_bytes(payload[..4].try_into().unwrap());
            } else {
                data += length;
            }
        }
        assert_eq!(last, PINGS - 1, "the last ping is answered");
        assert!(pongs * 127 <= UNWRITTEN_BYTES_MAX + 4096, "{pongs} pongs were buffered");
        serving.await.unwrap();
    }
}
