//! `inver config check`, `inver config show` and `inver config keys`.

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::ConfigArgument;
use crate::config::{EffectiveKey, Loaded, page};
use crate::{jwt, listeners, object_store, otlp};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the configuration without starting anything; print every problem.
    Check(ConfigArgument),
    /// Print every key with the value that a start would use, and where it comes from. Secrets are masked. What a running
    /// broker uses: `inver list config`.
    Show {
        #[command(flatten)]
        config: ConfigArgument,
        /// Lines of `key = value  # source`, or JSON.
        #[arg(long, value_enum, default_value_t = Shown::Text)]
        format: Shown,
        /// Only the keys that are set.
        #[arg(long)]
        set: bool,
    },
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

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Shown {
    /// Lines of text.
    Text,
    /// A JSON array of objects.
    Json,
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Check(argument) => {
                let Loaded { config, warnings, .. } = argument.load()?;
                let mut more = listeners::check(&config)?;
                more.extend(jwt::check(&config)?);
                otlp::check(&config.tracing)?;
                object_store::check(&config.store, |name| std::env::var(name).ok())?;
                // Opens the files that hold users and permissions.
                config.access()?;
                for warning in warnings.into_iter().chain(more) {
                    eprintln!("warning: {}: {}", warning.place, warning.what);
                }
                println!("the configuration is valid");
            }
            Command::Show { config, format, set } => {
                let Loaded { mut config, sources, .. } = config.load()?;
                let mut keys = config.effective(&sources);
                keys.retain(|key| !set || key.source.is_some());
                match format {
                    Shown::Text => keys.iter().for_each(|key| println!("{}", line(key))),
                    Shown::Json => {
                        let keys: Vec<_> = keys.iter().map(object).collect();
                        println!("{}", serde_json::to_string_pretty(&keys)?);
                    }
                }
            }
            Command::Keys { format: Format::Toml } => print!("{}", page::toml()),
            Command::Keys { format: Format::Markdown } => print!("{}", page::markdown()),
        }
        Ok(())
    }
}

fn source(key: &EffectiveKey) -> &str {
    key.source.as_deref().unwrap_or("default")
}

fn line(key: &EffectiveKey) -> String {
    format!("{} = {}  # {}", key.name, key.value, source(key))
}

/// As the API's `/config` shows it.
fn object(key: &EffectiveKey) -> serde_json::Value {
    json!({"name": key.name, "value": key.value, "default": key.default, "source": source(key)})
}
