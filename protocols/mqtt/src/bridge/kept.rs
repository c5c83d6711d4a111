//! What a bridge remembers of the other server's session across restarts: a row of the log, in JSON.

use std::collections::BTreeSet;

use bytes::Bytes;
use inver_broker::Broker;
use inver_storage::{Lsn, SubmitError};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::error::BridgeError;

/// The table of the rows, by the name of the bridge.
const TABLE: &str = "mqtt-bridge-sessions";
/// Bound of the filters of former configurations that are remembered besides those of the present one.
const FILTERS_MAX: usize = 1000;

/// A row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// The session on this broker is a new one: what the other server kept for the former one is not for it.
    pub(super) is_new: bool,
    /// What the other server's session may be subscribed to.
    pub(super) filters: BTreeSet<String>,
}

impl Kept {
    /// The row of a bridge.
    pub(super) fn of(broker: &Broker, bridge: &str) -> Kept {
        let Some(row) = broker.state(TABLE, bridge.as_bytes()) else { return Kept::default() };
        serde_json::from_slice(&row).unwrap_or_else(|error| {
            warn!(bridge, %error, "what a bridge remembers cannot be read");
            Kept::default()
        })
    }

    /// Changes the row. Durable on return.
    pub(super) async fn change(
        &mut self,
        broker: &Broker,
        bridge: &str,
        change: impl FnOnce(&mut Kept),
    ) -> Result<(), BridgeError> {
        let mut changed = self.clone();
        change(&mut changed);
        if changed == *self {
            return Ok(());
        }
        let row = serde_json::to_vec(&changed).map_err(|error| BridgeError::NotStored(error.to_string()))?;
        let stored = broker.put_state(TABLE, bridge.as_bytes(), Bytes::from(row));
        let lsn = stored.map_err(|error| BridgeError::NotStored(error.to_string()))?;
        let committed = broker.log().wait_committed(lsn).await;
        committed.map_err(|error| BridgeError::NotStored(error.to_string()))?;
        *self = changed;
        Ok(())
    }

    /// Notes a connection to the other server that subscribes to `wanted`. The filters of former configurations that its
    /// session may still be subscribed to.
    pub(super) fn connected(&mut self, has_session: bool, wanted: &BTreeSet<String>) -> Vec<String> {
        self.is_new = false;
        if !has_session {
            self.filters.clear();
        }
        let stale: Vec<String> = self.filters.difference(wanted).take(FILTERS_MAX).cloned().collect();
        self.filters = wanted.iter().chain(&stale).cloned().collect();
        stale
    }
}

/// Deletes the row of a bridge that is removed.
///
/// # Errors
/// The log rejects the write.
pub fn forget(broker: &Broker, bridge: &str) -> Result<Option<Lsn>, SubmitError> {
    match broker.state(TABLE, bridge.as_bytes()) {
        Some(_) => broker.delete_state(TABLE, bridge.as_bytes()).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(filters: &[&str]) -> BTreeSet<String> {
        filters.iter().map(|&filter| filter.to_owned()).collect()
    }

    #[test]
    fn kept_rows_stay_readable() {
        let row = r#"{"is_new":true,"filters":["a/#","b"]}"#;
        let kept = Kept { is_new: true, filters: set(&["a/#", "b"]) };
        assert_eq!(serde_json::from_str::<Kept>(row).unwrap(), kept);
        assert_eq!(serde_json::to_string(&kept).unwrap(), row);
        assert_eq!(serde_json::from_str::<Kept>("{}").unwrap(), Kept::default());
    }

    #[test]
    fn filters_of_former_configurations_are_found() {
        let mut kept = Kept { is_new: true, ..Kept::default() };
        assert!(kept.connected(false, &set(&["a", "b"])).is_empty());
        assert_eq!(kept, Kept { is_new: false, filters: set(&["a", "b"]) });
        assert_eq!(kept.connected(true, &set(&["b", "c"])), ["a"]);
        // Until the other server has answered it stays.
        assert_eq!(kept.connected(true, &set(&["b", "c"])), ["a"]);
        // A session that is gone has none.
        assert!(kept.connected(false, &set(&["c"])).is_empty());
        assert_eq!(kept.filters, set(&["c"]));
    }
}
