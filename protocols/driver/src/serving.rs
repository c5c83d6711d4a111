//! The future of one connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::driver::Driver;
use crate::machine::Machine;

/// Serves one connection to its end.
///
/// A future without states of its own: an idle connection is one piece of memory as large as its [`Driver`]. What a
/// connection is for a short time only, its opening and its end, is on the heap meanwhile.
pub enum Serving<M: Machine> {
    /// Before the machine exists. No driver: the connection is over.
    Opening(Pin<Box<dyn Future<Output = Option<Driver<M>>> + Send>>),
    /// Turn after turn.
    Running(Driver<M>),
    /// The last bytes are written.
    Ending(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// The connection is over.
    Over,
}

impl<M: Machine> Serving<M> {
    /// Serves a connection whose driver is made by a future.
    pub fn open(opening: impl Future<Output = Option<Driver<M>>> + Send + 'static) -> Serving<M> {
        Serving::Opening(Box::pin(opening))
    }
}

impl<M: Machine + 'static> Future for Serving<M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Serving::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Some(driver) => *self = Serving::Running(driver),
                    None => *self = Serving::Over,
                },
                Serving::Running(driver) => {
                    let end = ready!(driver.poll(cx));
                    if let Serving::Running(driver) = std::mem::replace(&mut *self, Serving::Over) {
                        *self = Serving::Ending(Box::pin(driver.finish(end)));
                    }
                }
                Serving::Ending(ending) => {
                    ready!(ending.as_mut().poll(cx));
                    *self = Serving::Over;
                }
                Serving::Over => return Poll::Ready(()),
            }
        }
    }
}
