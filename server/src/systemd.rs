//! Messages to the service manager that started the process (`sd_notify(3)`): ready, reloading, stopping, alive.
//!
//! Does nothing unless the environment names a socket. A message that cannot be sent is logged and otherwise ignored.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

pub(crate) struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The manager whose socket `NOTIFY_SOCKET` names, with the watchdog of `WATCHDOG_USEC`.
    pub(crate) fn from_environment() -> ServiceManager {
        let socket = std::env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty());
        let socket = socket.and_then(|address| {
            connected(&address)
                .inspect_err(|error| warn!(%error, address, "cannot notify the service manager"))
                .ok()
        });
        // The variables hold for one process, not for those that it starts.
        let is_for_us =
            std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let microseconds = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let watchdog = microseconds.filter(|_| is_for_us && socket.is_some()).map(Duration::from_micros);
        ServiceManager { socket, watchdog: watchdog.filter(|interval| !interval.is_zero()) }
    }

    /// How often [`ServiceManager::alive`] must be called: half of the interval after which the manager acts.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|interval| interval / 2)
    }

    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            warn!(%error, "cannot notify the service manager");
        }
    }
}

/// A socket connected to a path, or to a name of the abstract namespace, which begins with `@`.
fn connected(address: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.strip_prefix('@') {
        Some(name) => connect_abstract(&socket, name)?,
        None => socket.connect(address)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
