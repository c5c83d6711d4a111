//! What the commands that administer the running broker share: the login, requests with JSON, and the output.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::{ConfigArgument, request, user};

/// Items of the largest page of a list.
const PAGE_ITEMS: usize = 500;

/// How to reach the running broker, as whom, and how to print.
#[derive(Debug, clap::Args)]
pub(super) struct Api {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    login: Login,
    /// How lists are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// As whom to ask the running broker.
#[derive(Debug, clap::Args)]
pub(super) struct Login {
    /// The administrator who asks; not needed where there are no users.
    #[arg(long, value_name = "NAME")]
    login: Option<String>,
    /// File with the administrator's password; without it the password is read from standard input, before any other.
    #[arg(long, value_name = "FILE", requires = "login")]
    login_password_file: Option<PathBuf>,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Aligned columns.
    Table,
    /// JSON.
    Json,
}

/// Requests to the running broker.
pub(super) struct Client {
    config: crate::config::Config,
    login: Option<(String, String)>,
    output: Output,
}

impl Api {
    /// Reads the configuration, and the password if one is needed.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client { output: self.output, ..self.login.client(&self.config)? })
    }
}

impl Login {
    /// Reads the configuration, and the password if one is needed.
    pub(super) fn client(&self, config: &ConfigArgument) -> anyhow::Result<Client> {
        let login = match (&self.login, &self.login_password_file) {
            (None, _) => None,
            (Some(name), Some(file)) => {
                let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
                Some((name.clone(), text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            (Some(name), None) => Some((name.clone(), user::read_password(name)?)),
        };
        Ok(Client { config: config.load()?.config, login, output: Output::Table })
    }
}

impl Client {
    /// Sends a request; returns the body of the answer, `null` if it is empty.
    pub(super) fn send(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let login = self.login.as_ref().map(|(name, password)| (name.as_str(), password.as_str()));
        let path = format!("/api/v1{path}");
        let answer = request::send(&self.config, method, &path, login, body)?;
        let parsed = match answer.body.is_empty() {
            true => Value::Null,
            false => serde_json::from_str(&answer.body).context("the answer is not of this version")?,
        };
        if !answer.is_ok() {
            let detail = parsed.get("detail").and_then(Value::as_str).unwrap_or(&answer.status);
            match (answer.status.starts_with("401"), &self.login) {
                (true, None) => bail!("{detail}; name an administrator with --login"),
                _ => bail!("{detail}"),
            }
        }
        Ok(parsed)
    }

    /// Every item of a list.
    pub(super) fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let (mut items, mut page) = (Vec::new(), 1);
        let joint = if path.contains('?') { '&' } else { '?' };
        loop {
            let answer = self.send("GET", &format!("{path}{joint}page={page}&size={PAGE_ITEMS}"), None)?;
            let of_page = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            let is_last = of_page.len() < PAGE_ITEMS;
            items.extend(of_page);
            if is_last {
                return Ok(items);
            }
            page += 1;
        }
    }

    /// Prints items with these fields as columns.
    pub(super) fn print(&self, items: &[Value], columns: &[&str]) -> anyhow::Result<()> {
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(items)?),
            Output::Table => print!("{}", table(items, columns)),
        }
        Ok(())
    }
}

/// Aligned columns, each headed by its field's name.
fn table(items: &[Value], columns: &[&str]) -> String {
    let head = columns.iter().map(|column| (*column).to_owned()).collect();
    let mut rows: Vec<Vec<String>> = vec![head];
    rows.extend(items.iter().map(|item| columns.iter().map(|column| cell(item, column)).collect()));
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|text| text.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(item: &Value, column: &str) -> String {
    match item.get(column) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) if values.is_empty() => "-".to_owned(),
        Some(Value::Array(values)) => {
            let texts = values.iter().map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
            texts.collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

/// Text as a part of a path or a parameter of a query.
pub(super) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned() {
        let items = [json!({"name": "ann", "tags": ["a", "b"], "disabled": false}), json!({"name": "b"})];
        let expected = "name  tags  disabled\nann   a,b   false\nb     -     -\n";
        assert_eq!(table(&items, &["name", "tags", "disabled"]), expected);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a b/ü?"), "a%20b%2F%C3%BC%3F");
    }
}
