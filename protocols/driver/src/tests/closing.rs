//! How connections end: lingering, shutdown, and answers that are still owed.

use super::*;
use crate::timeouts::SHUTDOWN_LINGER;

const LINGER: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn the_last_output_is_written_although_the_client_still_sends() {
    let toys = Toys::new();
    let mut client = toys.connect(100);
    client.send("fill 1000\nbye\n").await;
    client.send(&"echo ignored\n".repeat(7)).await;
    assert_eq!(client.rest().await, format!("{}bye\n", "x".repeat(1000)));
    assert!(!client.serving.is_finished(), "it waits for the client to close");
    let Client { io, serving, .. } = client;
    drop(io);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_close_is_waited_for_no_longer_than_the_linger() {
    let toys = Toys::new();
    let mut client = toys.connect(100);
    client.send("bye\n").await;
    assert_eq!(client.ended().await.0, LINGER);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_last_output_is_waited_for_no_longer_than_the_linger() {
    let toys = Toys::new();
    let mut client = toys.connect(100);
    client.send("fill 1000\nbye\n").await;
    let (age, mut io) = client.ended().await;
    assert_eq!(age, LINGER);
    let mut read = Vec::new();
    io.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_first_is_given_the_time() {
    let toys = Toys::new();
    let mut client = toys.connect(100);
    client.send("leave\n").await;
    client.expect("bye\n").await;
    client.expect_silence().await;
    client.io.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "");
    assert!(client.ended().await.0 < LINGER);
    let mut client = toys.connect(100);
    client.send("leave\n").await;
    assert_eq!(client.ended().await.0, LINGER);
}

#[tokio::test(start_paused = true)]
async fn every_connection_learns_of_shutdown() {
    let toys = Toys::new();
    let (mut client, stalled) = (toys.connect(100), toys.connect(4));
    client.send("echo a\n").await;
    client.expect("a\n").await;
    toys.shutdown.cancel();
    assert_eq!(client.rest().await, "shutdown\n");
    // One that does not read does not delay the others, nor the end for longer than a shutdown waits.
    assert_eq!(stalled.ended().await.0, SHUTDOWN_LINGER);
    let mut late = toys.connect(100);
    assert_eq!(late.rest().await, "shutdown\n");
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_learns_the_first_reason_and_nothing_of_the_token() {
    let toys = Toys::new();
    let (mut client, mailbox) = toys.connect_with_mailbox();
    client.send("echo a\n").await;
    client.expect("a\n").await;
    mailbox.post(7);
    mailbox.close(CloseReason::Asked("enough".into()));
    mailbox.close(CloseReason::Asked("more".into()));
    assert_eq!(client.rest().await, "token 7\nenough\nshutdown\n");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_for_the_log_is_sent_after_the_client_closed_its_side() {
    let toys = Toys::new();
    let mut client = toys.connect(100);
    client.send("echo a\ncommit b\n").await;
    client.io.shutdown().await.unwrap();
    client.expect("a\n").await;
    client.expect_silence().await;
    toys.commit();
    assert_eq!(client.rest().await, "b\n");
    client.serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_never_committed_does_not_delay_the_end_for_longer_than_the_linger() {
    let toys = Toys::new();
    let mut client = toys.connect(100);
    client.send("commit b\nbye\n").await;
    assert_eq!(client.ended().await.0, LINGER);
}

#[tokio::test(start_paused = true)]
async fn a_failed_socket_is_dropped_at_once() {
    let toys = Toys::new();
    let client = toys.connect(100);
    let Client { io, started, serving } = client;
    drop(io);
    serving.await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(toys.connections.is_empty());
}
