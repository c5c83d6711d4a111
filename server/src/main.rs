//! The binary `inver`: parses its arguments and runs one command.
//!
//! The modules: [`commands`] (the command line), [`config`] (keys, file, environment), [`reload`] (the configuration
//! read again while the broker runs), [`listeners`] (TCP, Unix sockets, TLS, WebSocket), [`protocols`] (their list),
//! [`runtime`] (worker threads), [`http`] (health, metrics), [`telemetry`] (the recorder of metrics), [`logging`],
//! [`logins`] and [`passwords`] (authentication), [`files`] (permissions of files).

mod commands;
mod config;
mod files;
mod http;
mod listeners;
mod logging;
mod logins;
mod passwords;
mod protocols;
mod reload;
mod runtime;
mod settings;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    files::create_private();
    match commands::Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inver: {error:#}");
            ExitCode::FAILURE
        }
    }
}
