//! Keys of the object store.

use std::path::PathBuf;
use std::time::Duration;

use inver_settings::rules::{HOUR_MS, flag, milliseconds, value};
use inver_settings::section;

section! {
    /// The object store.
    #[derive(Debug, Clone)]
    pub(crate) struct StoreSection {
        /// Bucket of an S3 service. `inver store check` tests it; the broker does not use it yet. Empty: no store.
        pub(crate) bucket: String = String::new() => value("a bucket's name, or empty"),
        /// Folder in place of a bucket. Empty: none.
        pub(crate) folder: Option<PathBuf> = None => value("a path, or empty"),
        /// URL of the S3 service, without the bucket. Empty: AWS's service of the region.
        pub(crate) endpoint: String = String::new() => value("a URL, or empty"),
        /// Region that requests are signed for. Services other than AWS mostly take any.
        pub(crate) region: String = "us-east-1".into() => value("a region's name"),
        /// What the name of every object begins with, for a bucket that is used for other things too. Empty: nothing.
        pub(crate) prefix: String = String::new()
            => value("letters, digits, `.`, `_` and `-`, with `/` between, or empty"),
        /// Whether the bucket is in the path of a URL, and not in the name of its host.
        pub(crate) path_style: bool = true => flag(),
        /// Id of the access key. Empty: the environment variables `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
        /// `AWS_SESSION_TOKEN`.
        pub(crate) access_key_id: String = String::new() => value("an id, or empty"),
        /// Secret of the access key.
        pub(crate) secret_access_key: String = String::new() => value("a text, or empty"),
        /// Session token of temporary credentials.
        pub(crate) session_token: String = String::new() => value("a text, or empty"),
        /// File with the certificates of the authorities that the service's certificate is checked against, PEM. Empty:
        /// the system's.
        pub(crate) ca: Option<PathBuf> = None => value("a path, or empty"),
        /// Time for one request.
        pub(crate) timeout: Duration = Duration::from_secs(10) => milliseconds(100..=HOUR_MS),
        /// Time for connecting to the service, TLS included.
        pub(crate) connect_timeout: Duration = Duration::from_secs(3) => milliseconds(100..=HOUR_MS),
    }
}
