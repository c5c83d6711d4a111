//! A client that stops reading is disconnected after the one configured time, without a keep alive too.

use std::time::Duration;

use inver_driver::Timeouts;
use inver_mqtt::codec::*;
use tokio::time::Instant;

use crate::support::*;

/// Bytes that the stream of a client holds.
const STREAM_BYTES: usize = 4096;

const STEP: Duration = Duration::from_millis(500);

/// A client without keep alive that subscribed and has more to read than its stream holds.
async fn slow_subscriber(server: &Server, qos: Qos) -> Client {
    let mut client = server.dial_in_memory(Version::V311, STREAM_BYTES);
    client.send_connect(&ConnectOptions { client_id: "slow", keep_alive_s: 0, ..Default::default() }).await;
    client.connack().await;
    client.subscribe_at("t", qos).await;
    let mut publisher = server.client(Version::V311, "publisher").await;
    for _ in 0..20 {
        publisher.publish_text("t", &"x".repeat(STREAM_BYTES), qos).await;
    }
    publisher.disconnect().await;
    server.wait_for_sessions(1).await;
    client
}

fn sessions(server: &Server) -> usize {
    server.broker.default_sessions().len()
}

#[tokio::test]
async fn a_client_without_keep_alive_that_stops_reading_is_disconnected() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let server = Server::start().await;
        let _client = slow_subscriber(&server, qos).await;
        let time = PausedTime::start();
        let started = Instant::now();
        while sessions(&server) != 0 {
            assert!(started.elapsed() < Duration::from_secs(60), "still connected");
            time.advance(STEP).await;
        }
        let (elapsed, write_stall) = (started.elapsed(), Timeouts::default().write_stall);
        assert!((write_stall..write_stall + 4 * STEP).contains(&elapsed), "{elapsed:?}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_stays_connected() {
    let server = Server::start().await;
    let mut client = slow_subscriber(&server, Qos::AtMostOnce).await;
    let time = PausedTime::start();
    for _ in 0..20 {
        client.receive().await;
        time.advance(Timeouts::default().write_stall - STEP).await;
    }
    assert_eq!(sessions(&server), 1);
}
