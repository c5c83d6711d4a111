//! A response given by another task: a group's coordinator, or a thread that reads from disk.

use std::sync::Arc;

use inver_broker::Mailbox;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::codec::frame::Frame;

/// Mailbox token posted when a ticket was filled or dropped.
pub(crate) const FILLED: u64 = 1 << 63;

/// The sender's half. Dropping it unfilled leaves the claim without a response, which ends the connection.
pub(crate) struct Ticket {
    sender: Option<oneshot::Sender<Frame>>,
    mailbox: Arc<Mailbox>,
}

/// The connection's half.
#[derive(Debug)]
pub(crate) struct Claim(oneshot::Receiver<Frame>);

/// The state of a claim.
pub(crate) enum Claimed {
    /// There is no response yet.
    Waiting,
    /// The response.
    Frame(Frame),
    /// The ticket was dropped: there will be no response.
    Abandoned,
}

impl Ticket {
    /// A ticket and its claim.
    pub(crate) fn new(mailbox: &Arc<Mailbox>) -> (Ticket, Claim) {
        let (sender, receiver) = oneshot::channel();
        (Ticket { sender: Some(sender), mailbox: mailbox.clone() }, Claim(receiver))
    }

    /// Gives the response and wakes the connection.
    pub(crate) fn fill(mut self, frame: Frame) {
        if let Some(sender) = self.sender.take() {
            // The connection may be gone; then nobody needs the response.
            let _ = sender.send(frame);
        }
    }

    /// Whether the claim is gone: nobody waits for the response.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Before the mailbox, so that the connection finds the claim abandoned.
        drop(self.sender.take());
        self.mailbox.post(FILLED);
    }
}

impl Claim {
    /// Takes the response if there is one.
    pub(crate) fn take(&mut self) -> Claimed {
        match self.0.try_recv() {
            Ok(frame) => Claimed::Frame(frame),
            Err(TryRecvError::Empty) => Claimed::Waiting,
            Err(TryRecvError::Closed) => Claimed::Abandoned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_ticket_leaves_its_claim_abandoned() {
        let mailbox = Mailbox::new();
        let mut tokens = Vec::new();
        let (ticket, mut claim) = Ticket::new(&mailbox);
        assert!(matches!(claim.take(), Claimed::Waiting));
        drop(ticket);
        assert!(matches!(claim.take(), Claimed::Abandoned));
        mailbox.drain(&mut tokens);
        assert_eq!(tokens, [FILLED]);
        let (ticket, claim) = Ticket::new(&mailbox);
        assert!(!ticket.is_abandoned());
        drop(claim);
        assert!(ticket.is_abandoned());
    }
}
