//! Who is connected: how many, and a mailbox each, so that one task tells them all when the server is going down.
//!
//! Bound: a pointer and a number for each connection.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inver_broker::{Mailbox, Shutdown};

use crate::session::token;
use crate::sys::Plug;

/// The mailboxes of those who are connected.
#[derive(Default)]
pub(crate) struct Directory {
    places: Mutex<Places>,
    /// A task waits for the word that the server is going down.
    is_watched: AtomicBool,
}

#[derive(Default)]
struct Places {
    mailboxes: Vec<Option<Arc<Mailbox>>>,
    free: Vec<u32>,
    is_going_down: bool,
}

impl Directory {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on who is connected is told when the server is going down.
    pub(crate) fn watch(plug: &Arc<Plug>, shutdown: &Shutdown) {
        if !plug.directory.is_watched.swap(true, Ordering::AcqRel) {
            let (plug, mut shutdown) = (plug.clone(), shutdown.clone());
            tokio::spawn(async move {
                shutdown.requested().await;
                let mut places = plug.directory.places();
                places.is_going_down = true;
                places.mailboxes.iter().flatten().for_each(|mailbox| mailbox.post(token::GOING_DOWN));
            });
        }
    }
}

impl Places {
    fn enter(&mut self, mailbox: &Arc<Mailbox>) -> u32 {
        if self.is_going_down {
            mailbox.post(token::GOING_DOWN);
        }
        let mailbox = Some(mailbox.clone());
        if let Some(free) = self.free.pop()
            && let Some(place) = self.mailboxes.get_mut(free as usize)
        {
            *place = mailbox;
            return free;
        }
        self.mailboxes.push(mailbox);
        (self.mailboxes.len() - 1) as u32
    }

    fn leave(&mut self, place: u32) {
        if let Some(left) = self.mailboxes.get_mut(place as usize) {
            *left = None;
            self.free.push(place);
        }
    }
}

/// A client that is connected, and what it shares with the others.
pub(crate) struct Connected {
    plug: Arc<Plug>,
    place: u32,
}

impl Connected {
    pub(crate) fn new(plug: &Arc<Plug>, mailbox: &Arc<Mailbox>) -> Connected {
        plug.sys.one_more();
        Connected { place: plug.directory.places().enter(mailbox), plug: plug.clone() }
    }
}

impl Deref for Connected {
    type Target = Arc<Plug>;

    fn deref(&self) -> &Arc<Plug> {
        &self.plug
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.plug.directory.places().leave(self.place);
        self.plug.sys.one_less();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MqttConfig;

    #[tokio::test]
    async fn all_are_told_and_places_are_used_again() {
        let plug = Plug::new(MqttConfig::default());
        let (trigger, shutdown) = Shutdown::channel();
        Directory::watch(&plug, &shutdown);
        let (one, two, late) = (Mailbox::new(), Mailbox::new(), Mailbox::new());
        let first = Connected::new(&plug, &one);
        let place = first.place;
        drop(first);
        let second = Connected::new(&plug, &two);
        assert_eq!(second.place, place);
        trigger.request();
        two.wait().await;
        let _late = Connected::new(&plug, &late);
        late.wait().await;
        let mut tokens = Vec::new();
        two.drain(&mut tokens);
        assert_eq!(tokens, [token::GOING_DOWN]);
        one.drain(&mut tokens);
        assert!(tokens.is_empty(), "it had left");
    }
}
