//! A SUBSCRIBE or UNSUBSCRIBE of many filters, which is carried out in several turns.

use inver_broker::Mode;
use tokio::time::Instant;

use crate::codec::{Reason, SubscribeOptions};

/// Filters that are added and removed in one turn: the time of a turn allows for about so many.
pub(super) const FILTERS_A_TURN: u8 = 64;

/// A SUBSCRIBE or UNSUBSCRIBE that is carried out.
pub(super) struct Request {
    pub(super) packet_id: u16,
    pub(super) since: Instant,
    pub(super) kind: Kind,
    /// The answers to its filters so far.
    pub(super) reasons: Vec<Reason>,
}

pub(super) enum Kind {
    Subscribe { id: Option<u32>, mode: Result<Option<Mode>, (Reason, String)>, first_error: Option<String> },
    Unsubscribe,
}

/// A request of more filters than fit in a turn; those that are left.
pub(super) struct Ongoing {
    pub(super) request: Request,
    pub(super) filters: std::vec::IntoIter<(Box<str>, SubscribeOptions)>,
}

impl Kind {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::Subscribe { .. } => "subscribe",
            Kind::Unsubscribe => "unsubscribe",
        }
    }
}
