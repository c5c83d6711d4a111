//! `inver config check` and `inver config keys`.

use clap::Subcommand;

use super::ConfigArgument;
use crate::config::keys::KEYS;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read the configuration and say what is wrong with it, without starting anything.
    Check(ConfigArgument),
    /// Print every key with its default and meaning, as a configuration file.
    Keys,
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Check(argument) => {
                for warning in argument.load()?.warnings {
                    eprintln!("warning: {}: {}", warning.place, warning.what);
                }
                println!("the configuration is right");
            }
            Command::Keys => print!("{}", page()),
        }
        Ok(())
    }
}

/// A configuration file that holds the defaults, each with its meaning and variable.
fn page() -> String {
    let mut page = String::from("# Every key with its default. Each is also an environment variable.\n");
    let mut section = "";
    for key in KEYS.iter() {
        let (in_section, name) = key.name.split_once('.').unwrap_or(("", &key.name));
        // Keys without a section come first in the table.
        if in_section != section {
            section = in_section;
            page.push_str(&format!("\n[{section}]\n"));
        }
        // Whole sections are written so by variables only; in the file they are tables.
        let value = if key.is_structured() || key.default.parse::<u64>().is_ok() {
            key.default.to_string()
        } else {
            format!("\"{}\"", key.default)
        };
        page.push_str(&format!("# {}  ({})\n# {name} = {value}\n", key.help, key.variable()));
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_a_right_configuration_once_uncommented() {
        let page = super::page();
        let text: String = page
            .lines()
            .filter(|line| !line.starts_with("# ") || line.contains(" = ") && !line.contains("INVER_"))
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        // The default TLS addresses become explicit ones, which want a certificate: no other complaint.
        let error = crate::config::load(Some(file.path()), []).unwrap_err();
        assert!(error.0.iter().all(|problem| problem.what.contains("tls_listen needs")), "{error}");
    }
}
