//! Clients that stop reading, and clients that are silent.

use inver_storage::Shortage;

use super::*;

const WRITE_STALL: Duration = Duration::from_secs(15);
const LINGER: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_disconnected_after_the_write_stall() {
    let toys = Toys::new();
    let mut client = toys.connect(1000);
    client.send("fill 10000\n").await;
    let (age, mut io) = client.ended().await;
    assert_eq!(age, WRITE_STALL);
    let mut read = Vec::new();
    io.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), 1000, "what the stream held");
    assert!(toys.connections.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sends_does_not_excuse_that_it_does_not_read() {
    let toys = Toys::new();
    let mut client = toys.connect(1000);
    client.send("fill 10000\n").await;
    for _ in 0..20 {
        advance(SECOND).await;
        if client.io.write_all(b"echo a\n").await.is_err() {
            break;
        }
    }
    // Noticed with the next line.
    assert_eq!(client.started.elapsed(), WRITE_STALL + SECOND);
    assert!(client.serving.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_kept() {
    let toys = Toys::new();
    let mut client = toys.connect(100);
    client.send("fill 1000\n").await;
    for _ in 0..10 {
        advance(WRITE_STALL - SECOND).await;
        client.expect(&"x".repeat(100)).await;
    }
    client.send("echo still here\n").await;
    client.expect("still here\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_disconnected_after_the_time_of_its_machine() {
    let toys = Toys { silence_max: Some(60 * SECOND), ..Toys::new() };
    let mut client = toys.connect(1000);
    for _ in 0..3 {
        advance(59 * SECOND).await;
        client.send("echo a\n").await;
    }
    client.expect("a\na\na\n").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(client.started.elapsed(), (3 * 59 + 60) * SECOND);
}

#[tokio::test(start_paused = true)]
async fn parts_of_messages_are_activity_where_the_machine_says_so() {
    let toys = Toys { silence_max: Some(60 * SECOND), ..Toys::new() };
    let (mut bytes, mut messages) = (toys.connect(1000), toys.connect_as::<false>(1000));
    for _ in 0..20 {
        advance(10 * SECOND).await;
        bytes.send("e").await;
        _ = messages.io.write_all(b"e").await;
    }
    assert!(!bytes.serving.is_finished());
    assert!(messages.serving.is_finished());
    // The client did not close either, so the server lingered.
    assert!(messages.rest().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_does_not_count_while_the_log_holds_input_back() {
    let toys = Toys { silence_max: Some(60 * SECOND), ..Toys::new() };
    let mut client = toys.connect(1000);
    client.send("commit a\ncommit b\ncommit c\ncommit d\n").await;
    advance(SECOND).await;
    assert!(!toys.log.is_admitting());
    client.send("echo e\n").await;
    advance(600 * SECOND).await;
    let released = Instant::now();
    toys.commit();
    client.expect("a\nb\nc\nd\ne\n").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(released.elapsed(), 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn silence_does_not_count_while_the_output_is_full() {
    let toys = Toys { silence_max: Some(60 * SECOND), ..Toys::new() };
    let mut client = toys.connect(8 * 1024);
    client.send(&format!("fill {}\necho e\n", 5 * OUTPUT_BYTES_MAX)).await;
    for _ in 0..10 {
        advance(14 * SECOND).await;
        client.expect(&"x".repeat(8 * 1024)).await;
    }
    client.expect("e\n").await;
    assert_eq!(client.rest().await, "", "then it was silent");
    let (age, _) = client.ended().await;
    assert!(age > 150 * SECOND && age < 180 * SECOND + LINGER, "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_publishes_waits_at_the_gate_and_others_do_not() {
    let toys = Toys { silence_max: Some(60 * SECOND), ..Toys::new() };
    let (mut publisher, mut other) = (toys.connect(1000), toys.connect(1000));
    let gate = toys.log.gate().clone();
    gate.set(Shortage::Disk, true);
    publisher.send("echo a\ncommit b\necho c\n").await;
    publisher.expect("a\n").await;
    other.send("echo d\n").await;
    other.expect("d\n").await;
    // Its silence does not count.
    for _ in 0..20 {
        advance(30 * SECOND).await;
        other.send("echo e\n").await;
        other.expect("e\n").await;
    }
    assert!(!publisher.serving.is_finished());
    gate.set(Shortage::Disk, false);
    advance(SECOND).await;
    toys.commit();
    publisher.expect("b\nc\n").await;
    // It waits again the next time.
    gate.set(Shortage::Memory, true);
    publisher.send("commit f\n").await;
    advance(SECOND).await;
    gate.set(Shortage::Memory, false);
    advance(SECOND).await;
    toys.commit();
    publisher.expect("f\n").await;
}
