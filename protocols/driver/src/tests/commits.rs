//! Answers that wait for the log.

use super::*;

#[tokio::test(start_paused = true)]
async fn answers_come_in_order_when_they_are_committed() {
    let toys = Toys::new();
    let mut client = toys.connect(1000);
    client.send("commit a\ncommit b\n").await;
    client.expect_silence().await;
    toys.commit();
    client.expect("a\nb\n").await;
    client.send("commit c\n").await;
    client.expect_silence().await;
    toys.commit();
    client.expect("c\n").await;
}

#[tokio::test(start_paused = true)]
async fn input_waits_while_the_log_admits_no_more_and_goes_on_afterwards() {
    let toys = Toys::new();
    let (mut writer, mut other) = (toys.connect(1000), toys.connect(1000));
    writer.send("commit 1\ncommit 2\ncommit 3\ncommit 4\n").await;
    writer.expect_silence().await;
    other.send("echo held back\n").await;
    other.expect_silence().await;
    toys.commit();
    writer.expect("1\n2\n3\n4\n").await;
    other.expect("held back\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_learns_that_the_log_ended() {
    let toys = Toys::new();
    let mut client = toys.connect(1000);
    client.send("commit 1\ncommit 2\ncommit 3\ncommit 4\n").await;
    client.expect_silence().await;
    toys.log.shutdown().unwrap();
    client.expect("1\n2\n3\n4\n").await;
    client.send("echo a\n").await;
    assert_eq!(client.rest().await, "");
}
