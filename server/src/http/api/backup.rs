//! A backup of the running broker, as a stream.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use axum::body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::{info, warn};
use utoipa::ToSchema;

use inver_storage::BackupError;

use crate::backup;
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::problem::Problem;
use crate::http::request::Body;

/// Time within which the client must take more of the stream; segments are held meanwhile.
const STALL: Duration = Duration::from_secs(60);
/// Pieces of the stream on their way.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 256 << 10;

/// What the client has already.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Backup {
    /// Sealed segments of earlier backups that need not be sent again: file name and identity, from their manifest.
    #[serde(default)]
    had: BTreeMap<String, String>,
}

/// Back the broker up: a tar archive of files of a data folder, with `manifest.json` as its last entry. An archive that ends
/// without it is not whole.
#[utoipa::path(post, path = "/backup", tag = "node", request_body = Backup,
    responses((status = 200, body = Vec<u8>, content_type = "application/x-tar"),
        (status = 409, body = crate::http::problem::Body)))]
pub(in crate::http) async fn take(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<Backup>,
) -> Result<Response, Problem> {
    caller.check_administers()?;
    let log = app.broker.log().clone();
    let begun = tokio::task::spawn_blocking(move || log.begin_backup()).await;
    let begun = begun.map_err(|_| Problem::internal("the backup failed"))?;
    let taken = begun.map_err(|error| match error {
        BackupError::Running => Problem::conflict(error.to_string()),
        error => Problem::unavailable(error.to_string()),
    })?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        info!("backup begun");
        let mut out = Pieces { sender, runtime, piece: Vec::with_capacity(PIECE_BYTES) };
        let written = backup::write(&taken, &request.had, &mut out);
        match written.and_then(|manifest| out.flush().map(|()| manifest).map_err(Into::into)) {
            Ok(manifest) => info!(position = manifest.position, files = manifest.count(), "backup complete"),
            Err(error) => {
                warn!(%error, "backup failed");
                out.fail();
            }
        }
    });
    let stream = unfold(receiver, async |mut receiver: mpsc::Receiver<io::Result<Bytes>>| {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body::Body::from_stream(stream)).into_response())
}

/// The pieces of the stream, from a thread that may block.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self, piece: io::Result<Bytes>) -> io::Result<()> {
        let sent = self.runtime.block_on(self.sender.send_timeout(piece, STALL));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client does not take the backup"))
    }

    /// Ends the stream so that the client sees that it is not whole.
    fn fail(&mut self) {
        let _gone = self.send(Err(io::Error::other("the backup failed")));
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.send(Ok(piece.into()))
    }
}
