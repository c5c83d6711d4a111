//! The command line: one file per command.

mod admin;
mod backup;
mod ban;
mod bridge;
mod client;
mod config;
mod doctor;
mod health;
mod log;
mod named;
mod namespace;
mod permission;
mod policy;
mod quota;
mod reload;
mod serve;
mod store;
mod table;
mod user;

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Loaded, load};

/// One broker for RabbitMQ, Kafka and MQTT clients.
#[derive(Debug, Parser)]
#[command(name = "inver", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker until SIGTERM or SIGINT. SIGHUP lets it read its configuration again.
    Serve(serve::Arguments),
    /// Manage the users of the running broker, or of a configuration file.
    #[command(subcommand)]
    User(user::Command),
    /// Manage the permission rules of the running broker; say what a user may do.
    #[command(subcommand)]
    Permission(permission::Command),
    /// Manage the policies of the running broker: settings of queues and exchanges by their names.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Manage the quotas of the running broker.
    #[command(subcommand)]
    Quota(quota::Command),
    /// Ban clients of the running broker.
    #[command(subcommand)]
    Ban(ban::Command),
    /// Manage the bridges of the running broker to other MQTT servers.
    #[command(subcommand)]
    Bridge(bridge::Command),
    /// Manage the namespaces of the running broker.
    #[command(subcommand)]
    Namespace(namespace::Command),
    /// Check the configuration, list its keys.
    #[command(subcommand)]
    Config(config::Command),
    /// Inspect or salvage the log of a stopped broker.
    #[command(subcommand)]
    Log(log::Command),
    /// Test the object store of the configuration.
    #[command(subcommand)]
    Store(store::Command),
    /// Let the running broker read its configuration again; print what changed and what needs a restart.
    Reload(reload::Arguments),
    /// Check what a broker needs: configuration, data folder, disk, limits, clock, certificates, permissions of files.
    Doctor(doctor::Arguments),
    /// Check whether a running broker is ready; exit code 0 if it is.
    Health(health::Arguments),
    Backup(backup::Backup),
    Restore(backup::Restore),
    List(admin::List),
    Describe(admin::Describe),
    Create(admin::Create),
    Delete(admin::Delete),
    Close(admin::Close),
    Purge(admin::Purge),
    Skip(admin::Skip),
    Peek(admin::Peek),
    Export(admin::Export),
    Publish(admin::Publish),
    Route(admin::Route),
    Reset(admin::Reset),
    LogLevel(admin::LogLevel),
    /// Make completions for a shell, or man pages.
    #[command(subcommand)]
    Make(admin::Make),
}

impl Arguments {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(arguments) => arguments.run(),
            Command::User(command) => command.run(),
            Command::Permission(command) => command.run(),
            Command::Policy(command) => command.run(),
            Command::Quota(command) => command.run(),
            Command::Ban(command) => command.run(),
            Command::Bridge(command) => command.run(),
            Command::Namespace(command) => command.run(),
            Command::Config(command) => command.run(),
            Command::Log(command) => command.run(),
            Command::Store(command) => command.run(),
            Command::Reload(arguments) => arguments.run(),
            Command::Doctor(arguments) => arguments.run(),
            Command::Health(arguments) => arguments.run(),
            Command::Backup(command) => command.run(),
            Command::Restore(command) => command.run(),
            Command::List(command) => command.run(),
            Command::Describe(command) => command.run(),
            Command::Create(command) => command.run(),
            Command::Delete(command) => command.run(),
            Command::Close(command) => command.run(),
            Command::Purge(command) => command.run(),
            Command::Skip(command) => command.run(),
            Command::Peek(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Publish(command) => command.run(),
            Command::Route(command) => command.run(),
            Command::Reset(command) => command.run(),
            Command::LogLevel(command) => command.run(),
            Command::Make(command) => command.run(Arguments::command()),
        }
    }
}

/// The configuration argument of the commands that need one.
#[derive(Debug, Clone, clap::Args)]
struct ConfigArgument {
    /// Configuration file (TOML). Environment variables win over it.
    #[arg(long, value_name = "FILE", env = "INVER_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    /// The file that the environment names, if any.
    fn of_environment() -> ConfigArgument {
        ConfigArgument { config: std::env::var_os("INVER_CONFIG").map(PathBuf::from) }
    }

    fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn load(&self) -> anyhow::Result<Loaded> {
        Ok(load(self.file(), ConfigArgument::variables())?)
    }

    /// The environment variables that may be the broker's.
    fn variables() -> impl Iterator<Item = (String, String)> {
        // A variable that is not Unicode cannot be one of the broker's.
        std::env::vars_os().filter_map(|(name, text)| {
            let pair = (name.into_string().ok()?, text.into_string().ok()?);
            let is_own = pair.0 == "INVER_CONFIG" || client::VARIABLES.contains(&pair.0.as_str());
            (!is_own).then_some(pair)
        })
    }
}
