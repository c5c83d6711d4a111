//! What an exchange is declared as.

use serde::{Deserialize, Serialize};

use crate::value::Arguments;

/// The exchange that joins the protocols' address spaces; every namespace has one.
pub const HUB: &str = "amq.topic";

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangeKind {
    /// To bindings whose key equals the routing key.
    Direct,
    /// To every binding.
    Fanout,
    /// To bindings whose key is a filter that matches the routing key, level by level.
    Topic,
    /// To bindings whose arguments match the message's headers.
    Headers,
}

impl ExchangeKind {
    /// The name that users read and write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Fanout => "fanout",
            ExchangeKind::Topic => "topic",
            ExchangeKind::Headers => "headers",
        }
    }
}

impl std::str::FromStr for ExchangeKind {
    type Err = ();

    fn from_str(s: &str) -> Result<ExchangeKind, ()> {
        match s {
            "direct" => Ok(ExchangeKind::Direct),
            "fanout" => Ok(ExchangeKind::Fanout),
            "topic" => Ok(ExchangeKind::Topic),
            "headers" => Ok(ExchangeKind::Headers),
            _ => Err(()),
        }
    }
}

/// What an exchange was declared as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeSpec {
    /// How it routes.
    pub kind: ExchangeKind,
    /// Survives a restart.
    pub durable: bool,
    /// Is deleted with its last binding.
    pub auto_delete: bool,
    /// Refuses publishes of clients.
    pub internal: bool,
    /// Further settings, such as `alternate-exchange`.
    pub arguments: Arguments,
}
