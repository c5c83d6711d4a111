use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::config::{AmqpNames, BridgeSpec};

const PIPE_BYTES: usize = 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(60);

fn link(side: Side, now: Instant) -> (Link, DuplexStream) {
    let (near, far) = duplex(PIPE_BYTES);
    (Link::new(side, Version::V5, Box::new(near), usize::MAX, now), far)
}

async fn read_ping(far: &mut DuplexStream) {
    let mut ping = [0; 2];
    far.read_exact(&mut ping).await.unwrap();
    assert_eq!(ping, [0xc0, 0]);
}

#[tokio::test]
async fn a_server_that_is_not_read_is_not_silent() {
    let (clock, spec, status) = (Clock::manual(0), BridgeSpec::default(), Status::default());
    let (mut local, mut far_local) = link(Side::Local, clock.now());
    let (mut remote, mut far_remote) = link(Side::Remote, clock.now());
    remote.terms.keep_alive = Some(KEEP_ALIVE);
    let waiting_bytes = HARD_BYTES_MAX + 2 * PIPE_BYTES;
    local.output.resize(waiting_bytes, 0);
    let flows = (
        Flow::new(Topics::out(&spec, AmqpNames::Reversible), true),
        Flow::new(Topics::incoming(&spec), true),
    );
    let mut relay = Relay::new((local, remote), flows, 0, "b", &status);
    let stop = CancellationToken::new();
    let other_server = async {
        clock.advance(KEEP_ALIVE);
        read_ping(&mut far_remote).await;
        // Its answer is there, and there is no room for it.
        far_remote.write_all(&[0xd0, 0]).await.unwrap();
        clock.advance(KEEP_ALIVE * 2);
        far_local.read_exact(&mut vec![0; waiting_bytes]).await.unwrap();
        clock.advance(KEEP_ALIVE);
        read_ping(&mut far_remote).await;
    };
    tokio::select! {
        ended = relay.run(&clock, &stop) => panic!("{ended:?}"),
        () = other_server => {}
    }
}
