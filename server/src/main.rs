//! The binary `inver`: parses its arguments and runs one command.
//!
//! The modules: [`commands`] (the command line), [`config`] (keys, file, environment), [`reload`] (the configuration
//! read again while the broker runs), [`listeners`] (TCP, Unix sockets, TLS, WebSocket), [`protocols`] (their list),
//! [`runtime`] (worker threads), [`http`] (health, metrics), [`telemetry`] (the recorder of metrics), [`logging`], [`log_lines`],
//! [`otlp`] (export of traces), [`http_client`] (requests to other services), [`backup`] (archive, folder, restore),
//! [`allocator`] and [`memory`] (what the process may hold), [`systemd`] (readiness), [`logins`], [`passwords`] and [`jwt`] (authentication),
//! [`object_store`] (the bucket or folder for objects), [`files`] (permissions of files).

mod allocator;
mod backup;
mod bridges;
mod commands;
mod config;
mod files;
mod http;
mod http_client;
mod jwt;
mod listeners;
mod log_lines;
mod logging;
mod logins;
mod memory;
mod object_store;
mod otlp;
mod passwords;
mod protocols;
mod reload;
mod runtime;
mod settings;
mod systemd;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    files::create_private();
    match commands::Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inver: {}", once(error.chain()));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, but for those that the text before them names already.
fn once<'a>(chain: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>) -> String {
    let mut text = String::new();
    for cause in chain.map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn a_cause_is_said_once() {
        let error =
            anyhow!("no such file").context("failed to read x: no such file").context("failed to start");
        assert_eq!(super::once(error.chain()), "failed to start: failed to read x: no such file");
    }
}
