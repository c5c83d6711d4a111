//! The checks.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hyper::{Method, StatusCode};
use rustix::process::{Resource, getrlimit};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::Finding;
use crate::commands::client::Client;
use crate::config::{Config, ListenerEntry};
use crate::http::Disk;
use crate::memory::available_bytes;

/// Files that the broker opens beside connections.
const FILES_RESERVED: u64 = 512;
/// Memory below which default limits do not fit.
const MEMORY_MIN_BYTES: u64 = 512 << 20;
/// A certificate that expires within this time is a warning.
const EXPIRES_SOON_MS: i64 = 30 * 24 * 3600 * 1000;
/// A time before this, 2025-01-01, is a clock that was not set.
const CLOCK_MIN_MS: i64 = 1_735_689_600_000;
/// How far a file's time may be ahead of the clock.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60);
/// Files of the data folder whose times are compared with the clock.
const FILES_CHECKED_MAX: usize = 10_000;
/// Permissions of others than the owner.
const OTHERS: u32 = 0o077;

/// Runs all checks.
pub(super) fn run(config: &Config, file: Option<&Path>, now_ms: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(data_folder(&config.general.data_dir));
    findings.extend(disk(config));
    findings.push(open_files(config));
    findings.push(memory());
    findings.push(clock(&config.general.data_dir, now_ms));
    findings.extend(certificates(config, now_ms));
    findings.extend(private_files(config, file));
    findings.push(running(config));
    findings
}

/// The folder itself, or the nearest one above it that is there.
fn existing(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    absolute.ancestors().find(|above| above.exists()).map_or(absolute.clone(), Path::to_path_buf)
}

fn data_folder(folder: &Path) -> Finding {
    const CHECK: &str = "data folder";
    let (shown, present) = (folder.display(), existing(folder));
    if !present.is_dir() {
        return Finding::error(CHECK, format!("{} is not a folder", present.display()));
    }
    if let Err(error) = rustix::fs::access(&present, rustix::fs::Access::WRITE_OK) {
        let user = rustix::process::geteuid().as_raw();
        return Finding::error(
            CHECK,
            format!("user id {user} cannot write to {}: {error}", present.display()),
        );
    }
    if !folder.exists() {
        return Finding::ok(CHECK, format!("{shown} will be created"));
    }
    match std::fs::metadata(folder).map(|metadata| metadata.permissions().mode()) {
        Ok(mode) if mode & OTHERS != 0 => {
            let mode = mode & 0o777;
            Finding::warning(CHECK, format!("{shown} is open to other users (mode {mode:o}): use chmod 700"))
        }
        Ok(_) => Finding::ok(CHECK, format!("{shown} is there and can be written")),
        Err(error) => Finding::error(CHECK, format!("{shown}: {error}")),
    }
}

fn disk(config: &Config) -> Option<Finding> {
    const CHECK: &str = "disk";
    let disk = Disk::at(&existing(&config.general.data_dir))?;
    let needed = config.log.segment_bytes_max.saturating_mul(2);
    let mib = |bytes: u64| bytes >> 20;
    let text = format!("{} MiB of {} MiB are free", mib(disk.free_bytes), mib(disk.size_bytes));
    Some(if disk.free_bytes < needed {
        let needed = mib(needed);
        Finding::error(CHECK, format!("{text}; two segment files (log.segment_bytes_max) need {needed} MiB"))
    } else if disk.free_bytes < disk.size_bytes / 10 {
        Finding::warning(CHECK, format!("{text}: less than a tenth"))
    } else {
        Finding::ok(CHECK, text)
    })
}

fn open_files(config: &Config) -> Finding {
    const CHECK: &str = "open files";
    // The broker raises its limit to the hard limit.
    let Some(max) = getrlimit(Resource::Nofile).maximum else {
        return Finding::ok(CHECK, "no limit");
    };
    let connections = config.limits.connections_max as u64;
    if max < 2 * FILES_RESERVED {
        Finding::error(
            CHECK,
            format!("the limit of {max} leaves hardly any for connections: raise it (ulimit -n)"),
        )
    } else if max - FILES_RESERVED < connections {
        let left = max - FILES_RESERVED;
        Finding::warning(
            CHECK,
            format!("the limit of {max} lowers limits.connections_max from {connections} to {left}"),
        )
    } else {
        Finding::ok(CHECK, format!("the limit of {max} is enough for {connections} connections"))
    }
}

fn memory() -> Finding {
    const CHECK: &str = "memory";
    match available_bytes() {
        None => Finding::ok(CHECK, "the system does not say how much there is"),
        Some(bytes) if bytes < MEMORY_MIN_BYTES => {
            let (has, wants) = (bytes >> 20, MEMORY_MIN_BYTES >> 20);
            Finding::warning(
                CHECK,
                format!(
                    "{has} MiB; with less than {wants} MiB lower log.tail_cache_bytes_max and kafka.*_bytes_max"
                ),
            )
        }
        Some(bytes) => Finding::ok(CHECK, format!("{} MiB may be used", bytes >> 20)),
    }
}

fn clock(folder: &Path, now_ms: i64) -> Finding {
    const CHECK: &str = "clock";
    if now_ms < CLOCK_MIN_MS {
        return Finding::error(CHECK, "the clock is not set: expiry and retention would act on wrong times");
    }
    let files = std::fs::read_dir(folder).into_iter().flatten().take(FILES_CHECKED_MAX).flatten();
    let newest = files.filter_map(|file| file.metadata().ok()?.modified().ok()).max();
    let now = UNIX_EPOCH + Duration::from_millis(now_ms.unsigned_abs());
    match newest.and_then(|newest| newest.duration_since(now).ok()) {
        Some(ahead) if ahead > CLOCK_AHEAD_MAX => {
            let seconds = ahead.as_secs();
            Finding::warning(
                CHECK,
                format!("files of the data folder are {seconds} s ahead: the clock was set back"),
            )
        }
        _ => Finding::ok(CHECK, "plausible"),
    }
}

/// The files of all listeners, each once.
fn files(config: &Config, of: impl Fn(&ListenerEntry) -> Option<PathBuf>) -> BTreeSet<PathBuf> {
    config.listeners().iter().filter_map(of).collect()
}

fn certificates(config: &Config, now_ms: i64) -> Vec<Finding> {
    let paths = files(config, |entry| entry.settings.tls_cert.clone());
    paths.iter().map(|path| certificate(path, now_ms)).collect()
}

fn certificate(path: &Path, now_ms: i64) -> Finding {
    const CHECK: &str = "certificate";
    let shown = path.display();
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = match chain {
        Ok(chain) if chain.is_empty() => return Finding::error(CHECK, format!("{shown} has no certificate")),
        Ok(chain) => chain,
        Err(error) => return Finding::error(CHECK, format!("{shown}: {error}")),
    };
    let Some(expires_ms) = chain.iter().filter_map(|der| expires_ms(der)).min() else {
        return Finding::error(CHECK, format!("{shown}: its validity cannot be read"));
    };
    let days = (expires_ms - now_ms).div_euclid(24 * 3600 * 1000);
    if expires_ms <= now_ms {
        Finding::error(CHECK, format!("{shown} expired {} days ago", -days))
    } else if expires_ms - now_ms < EXPIRES_SOON_MS {
        Finding::warning(CHECK, format!("{shown} expires in {days} days"))
    } else {
        Finding::ok(CHECK, format!("{shown} is valid for {days} days"))
    }
}

/// When a certificate expires, milliseconds since 1970; none if it cannot be read.
fn expires_ms(der: &[u8]) -> Option<i64> {
    let certificate = Certificate::from_der(der).ok()?;
    let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    i64::try_from(end.as_millis()).ok()
}

/// Private keys, and the configuration if it has users.
fn private_files(config: &Config, file: Option<&Path>) -> Vec<Finding> {
    const CHECK: &str = "permissions";
    let keys = files(config, |entry| entry.settings.tls_key.clone());
    let mut findings = Vec::new();
    for path in keys.iter().map(PathBuf::as_path).chain(file) {
        let shown = path.display();
        match std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777) {
            Ok(mode) if mode & OTHERS != 0 => {
                let text = format!("{shown} can be read by other users (mode {mode:o}): use chmod 600");
                findings.push(Finding::warning(CHECK, text));
            }
            Ok(_) => findings.push(Finding::ok(CHECK, format!("{shown} is private"))),
            Err(error) => findings.push(Finding::error(CHECK, format!("{shown}: {error}"))),
        }
    }
    findings
}

fn running(config: &Config) -> Finding {
    const CHECK: &str = "running broker";
    let asked = Client::of(config).and_then(|client| client.request(Method::GET, "/health/alarms", None));
    match asked {
        Err(error) => Finding::ok(CHECK, format!("none answers: {error:#}")),
        Ok(answer) if answer.status.is_success() => Finding::ok(CHECK, "no alarms"),
        Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
            Finding::error(CHECK, answer.text().trim().replace('\n', "; "))
        }
        Ok(answer) => Finding::warning(CHECK, format!("it answers `{}`: is it Inver?", answer.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Severity;

    #[test]
    fn a_fresh_folder_is_fine_and_an_open_one_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(data_folder(&folder.path().join("new/er")).severity, Severity::Ok);
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(data_folder(folder.path()).severity, Severity::Warning);
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(data_folder(folder.path()).severity, Severity::Ok);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(data_folder(&file.join("x")).severity, Severity::Error);
    }

    #[test]
    fn a_clock_that_was_set_back_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let now_ms = inver_broker::now_ms();
        assert_eq!(clock(folder.path(), now_ms).severity, Severity::Ok);
        assert_eq!(clock(folder.path(), now_ms - 3_600_000).severity, Severity::Warning);
        assert_eq!(clock(folder.path(), 1_000_000).severity, Severity::Error);
    }
}
