//! The binary `inver`: parses its arguments and runs one command.
//!
//! The modules: [`commands`] (the command line), [`config`] (keys, file, environment), [`listeners`] (TCP, TLS,
//! WebSocket), [`protocols`] (their list), [`runtime`] (worker threads), [`http`] (health, metrics), [`logging`] (the form of
//! the log), [`telemetry`] (the recorder of metrics), [`logins`] and [`passwords`] (authentication).

mod commands;
mod config;
mod http;
mod listeners;
mod logging;
mod logins;
mod passwords;
mod protocols;
mod runtime;
mod settings;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inver: {error:#}");
            ExitCode::FAILURE
        }
    }
}
