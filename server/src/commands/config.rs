//! `inver config check` and `inver config keys`.

use clap::{Subcommand, ValueEnum};

use super::ConfigArgument;
use crate::config::{Loaded, page};
use crate::listeners;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the configuration without starting anything; print every problem.
    Check(ConfigArgument),
    /// Print every key with its default, bounds, meaning and environment variable.
    Keys {
        /// A configuration file to start from, or the documentation page.
        #[arg(long, value_enum, default_value_t = Format::Toml)]
        format: Format,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// A configuration file with every key commented out.
    Toml,
    /// The page docs/configuration.md.
    Markdown,
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Check(argument) => {
                let Loaded { config, warnings, .. } = argument.load()?;
                for warning in warnings.into_iter().chain(listeners::check(&config)?) {
                    eprintln!("warning: {}: {}", warning.place, warning.what);
                }
                println!("the configuration is valid");
            }
            Command::Keys { format: Format::Toml } => print!("{}", page::toml()),
            Command::Keys { format: Format::Markdown } => print!("{}", page::markdown()),
        }
        Ok(())
    }
}
