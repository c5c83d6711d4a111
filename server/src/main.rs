//! The binary `inver`: reads its arguments, does one command, exits.
//!
//! Everything of substance lies in the rooms below; this file only joins them. The rooms:
//! [`config`] (keys, file, environment), [`listeners`] (TCP, TLS, WebSocket), [`protocols`] (their list),
//! [`runtime`] (threads), [`http`] (health, metrics), [`commands`] (the command line).

mod commands;
mod config;
mod http;
mod listeners;
mod passwords;
mod protocols;
mod runtime;
mod settings;
mod users;

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
