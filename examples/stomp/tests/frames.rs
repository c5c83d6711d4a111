//! Frames at every split, malformed frames, and frames that are read back.

use inver_stomp_example::frame::*;

#[test]
fn frames_are_whole_or_incomplete_at_every_split() {
    let mut wire = b"\n\r\nSEND\r\ndestination:/queue/a\\cb\ndestination:second\n\nbody\0".to_vec();
    let whole = wire.len();
    wire.extend_from_slice(b"SEND\ncontent-length:3\n\na\0b\0\n");
    let (used, frame) = parse(&wire).unwrap();
    let frame = frame.unwrap();
    assert_eq!((used, frame.command, frame.body), (whole, "SEND", &b"body"[..]));
    assert_eq!(frame.header("destination"), Some("/queue/a:b"));
    for end in 0..whole {
        assert_eq!(parse(&wire[..end]), Ok((end.min(3), None)), "{end}");
    }
    assert_eq!(parse(&wire[whole..]).unwrap().1.unwrap().body, b"a\0b");
}

#[test]
fn malformed_frames_are_refused() {
    for wire in [
        &b"SEND\nno colon\n\n\0"[..],
        b"SEND\na:\\t\n\n\0",
        b"SEND\na:\xff\n\n\0",
        b"SEND\ncontent-length:x\n\n\0",
        b"SEND\ncontent-length:1\n\nab\0",
    ] {
        assert!(parse(wire).is_err(), "{wire:?}");
    }
    assert!(parse(&vec![b'a'; FRAME_BYTES_MAX + 1]).is_err());
    let many = format!("SEND\n{}\n\0", "a:b\n".repeat(HEADERS_MAX + 1));
    assert!(parse(many.as_bytes()).is_err());
}

#[test]
fn a_written_frame_is_read_back() {
    let mut out = Vec::new();
    put_command(&mut out, "MESSAGE");
    put_header(&mut out, "a:b", "c\\d\r\ne");
    put_body(&mut out, b"\0body");
    let frame = parse(&out).unwrap().1.unwrap();
    assert_eq!((frame.header("a:b"), frame.body), (Some("c\\d\r\ne"), &b"\0body"[..]));
}
