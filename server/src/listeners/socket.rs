//! Listening sockets and the streams that they accept: TCP and Unix.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::config::{self, Address};

/// The address of clients of Unix sockets, which have none: they are on this machine.
pub(super) const LOCAL_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A bound socket.
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix { socket: UnixListener, _file: SocketFile },
}

/// An accepted stream, of no runtime yet.
pub(super) enum Stream {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

/// The file of a Unix socket, removed when dropped.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number of the file: another broker may have put its own in this place.
    id: Option<(u64, u64)>,
}

impl Socket {
    /// Binds an address. Must run within a runtime. `mode` are the permissions of a Unix socket; `backlog` connections wait
    /// at a TCP socket until they are accepted.
    pub(super) fn bind(address: &Address, mode: u32, backlog: u32) -> io::Result<Socket> {
        match address {
            Address::Tcp(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                // Else the address could not be bound again while connections of an earlier process end.
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                Ok(Socket::Tcp(socket.listen(backlog)?))
            }
            Address::Unix(path) => {
                remove_stale(path)?;
                let socket = StdUnixListener::bind(path)?;
                let file = SocketFile { path: path.clone(), id: id(path) };
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Unix { socket: UnixListener::from_std(socket)?, _file: file })
            }
        }
    }

    /// The address as bound, where the port was left to the system.
    pub(super) fn local(&self, configured: &Address) -> Address {
        match self {
            Socket::Tcp(socket) => socket.local_addr().map_or_else(|_| configured.clone(), Address::Tcp),
            Socket::Unix { .. } => configured.clone(),
        }
    }

    /// The next connection, and the client's address.
    pub(super) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        // The worker's reactor must poll the stream, not this thread's.
        match self {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Stream::Tcp(stream.into_std()?), peer))
            }
            Socket::Unix { socket, .. } => {
                let (stream, _) = socket.accept().await?;
                Ok((Stream::Unix(stream.into_std()?), LOCAL_PEER))
            }
        }
    }
}

/// Removes the file of a Unix socket on which nobody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is another file of this name"));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn id(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && id(&self.path) == self.id {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

/// What an operator can do about an address that cannot be bound.
pub(super) fn explain(error: &io::Error, key: &str, address: &Address) -> anyhow::Error {
    // Entries of the list have no variable of their own.
    let change = if key.contains('[') {
        format!("set another address in {key}")
    } else {
        let variable = config::variable(key);
        format!("set `{key}` in the configuration or {variable} to another address, or to `off`")
    };
    let what = match address {
        Address::Tcp(address) => format!("port {}", address.port()),
        Address::Unix(path) => format!("the socket {}", path.display()),
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!("{what} ({key} = {address}) is already in use; {change}"),
        io::ErrorKind::PermissionDenied => {
            anyhow!("{what} ({key} = {address}) needs privileges that this user does not have; {change}")
        }
        _ => anyhow!("failed to listen on {address} ({key}): {error}; {change}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKLOG: u32 = 16;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn as_many_connections_wait_as_configured() {
        let any = Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let socket = Socket::bind(&any, 0, 300).unwrap();
        let Address::Tcp(address) = socket.local(&any) else { panic!("not TCP") };
        // Beyond the backlog the system answers no connection.
        let connect =
            |_| std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(20)).unwrap();
        let waiting: Vec<_> = (0..250).map(connect).collect();
        assert_eq!(waiting.len(), 250);
    }

    #[tokio::test]
    async fn the_file_of_a_socket_has_its_mode_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = Address::Unix(path.clone());
        let first = Socket::bind(&address, 0o640, BACKLOG).unwrap();
        assert_eq!(mode(&path), 0o640);
        assert_eq!(Socket::bind(&address, 0o600, BACKLOG).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        let client = StdUnixStream::connect(&path).unwrap();
        let (stream, peer) = first.accept().await.unwrap();
        assert!(matches!(stream, Stream::Unix(_)) && peer.ip().is_loopback());
        drop((client, first));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_left_behind_is_replaced_and_others_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = Address::Unix(path.clone());
        // As after a crash.
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = Socket::bind(&address, 0o600, BACKLOG).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Socket::bind(&address, 0o600, BACKLOG).unwrap();
        drop(first);
        assert!(path.exists(), "the file is another socket's");
        drop(second);
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(
            Socket::bind(&address, 0o600, BACKLOG).err().unwrap().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
