//! Frames of STOMP 1.2: bytes ↔ command, headers and body.

use std::borrow::Cow;

/// Bytes of one frame. A larger one ends the connection.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Headers of one frame.
pub const HEADERS_MAX: usize = 64;

/// A frame of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the client wants.
    pub command: &'a str,
    /// Names and values, in order.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The body.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// The value of a header. Of repeated ones the first counts.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame: {0}")]
pub struct Malformed(&'static str);

/// The frame at the start of `input` and the bytes it took; without a frame, the bytes of the line ends before it.
pub fn parse(input: &[u8]) -> Result<(usize, Option<Frame<'_>>), Malformed> {
    let start = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let mut rest = Rest { input, at: start };
    match rest.frame()? {
        Some(frame) => Ok((rest.at, Some(frame))),
        None if input.len() - start > FRAME_BYTES_MAX => Err(Malformed("too long")),
        None => Ok((start, None)),
    }
}

struct Rest<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    /// The next frame; none if it is not whole.
    fn frame(&mut self) -> Result<Option<Frame<'a>>, Malformed> {
        let Some(command) = self.line()? else { return Ok(None) };
        // CONNECT has no escapes, for the sake of STOMP 1.0.
        let is_escaped = !matches!(command, "CONNECT" | "CONNECTED");
        let mut headers = Vec::new();
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(Malformed("a header without a colon"))?;
            if headers.len() == HEADERS_MAX {
                return Err(Malformed("too many headers"));
            }
            headers.push(if is_escaped {
                (unescape(name)?, unescape(value)?)
            } else {
                (name.into(), value.into())
            });
        }
        let mut frame = Frame { command, headers, body: b"" };
        let unread = self.input.get(self.at..).unwrap_or_default();
        let length = match frame.header("content-length") {
            Some(length) => length.parse().map_err(|_| Malformed("content-length is not a number"))?,
            None => match unread.iter().position(|byte| *byte == 0) {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        match (unread.get(..length), unread.get(length)) {
            (Some(body), Some(0)) => frame.body = body,
            (Some(_), Some(_)) => return Err(Malformed("no NUL after the body")),
            _ => return Ok(None),
        }
        self.at += length + 1;
        Ok(Some(frame))
    }

    /// The next line without its end; none if it is not whole.
    fn line(&mut self) -> Result<Option<&'a str>, Malformed> {
        let unread = self.input.get(self.at..).unwrap_or_default();
        let Some(length) = unread.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = unread.get(..length).unwrap_or_default();
        self.at += length + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        std::str::from_utf8(line).map(Some).map_err(|_| Malformed("headers are not UTF-8"))
    }
}

fn unescape(text: &str) -> Result<Cow<'_, str>, Malformed> {
    if !text.contains('\\') {
        return Ok(text.into());
    }
    let (mut plain, mut characters) = (String::with_capacity(text.len()), text.chars());
    while let Some(character) = characters.next() {
        let escaped = if character == '\\' { characters.next() } else { None };
        plain.push(match (character, escaped) {
            ('\\', Some('r')) => '\r',
            ('\\', Some('n')) => '\n',
            ('\\', Some('c')) => ':',
            ('\\', Some('\\')) => '\\',
            ('\\', _) => return Err(Malformed("an unknown escape")),
            (other, _) => other,
        });
    }
    Ok(plain.into())
}

/// Writes the command line of a frame.
pub fn put_command(out: &mut Vec<u8>, command: &str) {
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
}

/// Writes a header with its escapes.
pub fn put_header(out: &mut Vec<u8>, name: &str, value: &str) {
    put_escaped(out, name);
    out.push(b':');
    put_escaped(out, value);
    out.push(b'\n');
}

/// Writes the body and ends the frame.
pub fn put_body(out: &mut Vec<u8>, body: &[u8]) {
    out.extend_from_slice(format!("content-length:{}\n\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out.push(0);
}

fn put_escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b':' => out.extend_from_slice(b"\\c"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            other => out.push(other),
        }
    }
}
