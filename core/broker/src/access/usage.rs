//! The channels that each user has open at present, for the limits of users.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::AccessControl;

/// Open channels by user; users without one are not in it.
#[derive(Default)]
pub(super) struct Usage(Mutex<HashMap<Arc<str>, u32>>);

/// A user has as many channels as its limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user's limit of {max} channels is reached")]
pub struct ChannelLimitReached {
    /// The limit.
    pub max: u32,
}

/// An open channel of a user, until it is dropped.
pub struct UserChannel {
    access: AccessControl,
    user: Arc<str>,
}

impl AccessControl {
    /// Counts a channel of a user, if its limit allows another.
    pub fn open_channel(&self, user: &Arc<str>) -> Result<UserChannel, ChannelLimitReached> {
        let max = self.user(user).and_then(|(user, _)| user.limits.channels_max);
        let mut open = self.0.usage.0.lock();
        let present = open.get(user).copied().unwrap_or_default();
        if let Some(max) = max
            && present >= max
        {
            return Err(ChannelLimitReached { max });
        }
        open.insert(user.clone(), present + 1);
        Ok(UserChannel { access: self.clone(), user: user.clone() })
    }
}

impl Drop for UserChannel {
    fn drop(&mut self) {
        let mut open = self.access.0.usage.0.lock();
        let left = open.get(&self.user).map_or(0, |present| present.saturating_sub(1));
        if left == 0 {
            open.remove(&self.user);
        } else {
            open.insert(self.user.clone(), left);
        }
    }
}

impl std::fmt::Debug for UserChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserChannel").field("user", &self.user).finish_non_exhaustive()
    }
}
