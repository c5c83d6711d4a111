//! Batch formats: which properties of a message the broker keeps in the batches that it composes for a log topic, and how
//! it compresses them. Batches that a producer finished are stored as they are.

use std::sync::Arc;

use inver_storage::Compression;

use crate::message::{HeaderView, HeaderWriter, Headers, RawHeaders};
use crate::spec::{TopicConfig, TopicError};

/// The setting for the properties that are kept: `all`, `none` (user headers only, like a producer's record), or a list
/// of names separated by commas.
const HEADERS: &str = "inver.headers";

/// The setting for the compression: `gzip`, `snappy`, `lz4`, `zstd`; otherwise none.
const COMPRESSION: &str = "compression.type";

/// Names that the setting of headers may list.
const HEADER_NAMES_MAX: usize = 99;

/// The batch format of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BatchFormat {
    keep: Keep,
    pub(crate) compression: Compression,
}

#[derive(Debug, PartialEq, Eq)]
enum Keep {
    All,
    None,
    These(Vec<Box<[u8]>>),
}

impl BatchFormat {
    /// The format of the settings; none if it is the default.
    pub(crate) fn of(config: &TopicConfig) -> Option<Arc<BatchFormat>> {
        let keep = match config.get(HEADERS).map(|v| v.trim()) {
            None | Some("" | "all") => Keep::All,
            Some("none") => Keep::None,
            Some(list) => Keep::These(names(list).map(|n| n.as_bytes().into()).collect()),
        };
        let compression = match config.get(COMPRESSION).map(|v| v.trim()) {
            Some("gzip") => Compression::Gzip,
            Some("snappy") => Compression::Snappy,
            Some("lz4") => Compression::Lz4,
            Some("zstd") => Compression::Zstd,
            _ => Compression::None,
        };
        let format = BatchFormat { keep, compression };
        (format != BatchFormat { keep: Keep::All, compression: Compression::None }).then(|| Arc::new(format))
    }

    pub(crate) fn check(config: &TopicConfig) -> Result<(), TopicError> {
        let count = config.get(HEADERS).map_or(0, |list| names(list).count());
        if count > HEADER_NAMES_MAX {
            let reason = format!("{HEADERS} lists {count} names, and can have {HEADER_NAMES_MAX}");
            return Err(TopicError::BadConfig(reason));
        }
        Ok(())
    }

    /// The headers that are kept, composed in `writer` if need be.
    pub(crate) fn headers<'a>(&self, headers: Headers<'a>, writer: &'a mut HeaderWriter) -> Headers<'a> {
        let view = HeaderView::over(RawHeaders::encoded(headers.bytes, headers.count));
        let Some(origin) = view.origin().and_then(|o| std::str::from_utf8(o).ok()) else { return headers };
        match &self.keep {
            Keep::All => headers,
            Keep::None => view.user().as_headers(),
            Keep::These(names) => {
                writer.begin(origin, None);
                for (name, value) in view.properties() {
                    if names.iter().any(|kept| **kept == *name) {
                        writer.property(name, value.unwrap_or_default());
                    }
                }
                writer.user_encoded(view.user().as_headers());
                writer.headers()
            }
        }
    }
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}
