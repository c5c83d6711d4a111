//! Users and namespaces: objects of the running broker that are listed, put and deleted by name.

use anyhow::bail;
use hyper::Method;
use serde_json::{Map, Value};

use super::client::{Client, Reach, encoded};
use super::table::{self, Output};

/// How to reach the running broker, and how to print.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) reach: Reach,
    /// How lists are printed.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

/// A kind of objects.
pub(super) struct Named {
    /// Where they are in the API.
    pub(super) path: &'static str,
    /// What one is called.
    pub(super) noun: &'static str,
    /// What a list shows.
    pub(super) columns: &'static [&'static str],
}

/// Fields to set; those without a value stay as they are.
pub(super) type Fields<'a> = &'a [(&'a str, Option<Value>)];

impl Named {
    /// Prints all of them.
    pub(super) fn list(&self, options: &Options) -> anyhow::Result<()> {
        let items = options.reach.client()?.list(self.path, false, &[], usize::MAX)?;
        Ok(table::print(options.output, &Value::Array(items), &table::columns(self.columns))?)
    }

    /// Adds one, which must not be there yet.
    pub(super) fn add(&self, client: &Client, name: &str, fields: Fields) -> anyhow::Result<()> {
        let noun = self.noun;
        if self.knows(client, name)? {
            bail!("there is a {noun} {name} already; `inver {noun} set` changes it");
        }
        self.put(client, name, fields)?;
        eprintln!("added {noun} {name}");
        Ok(())
    }

    /// Changes one, which must be there.
    pub(super) fn set(&self, client: &Client, name: &str, fields: Fields) -> anyhow::Result<()> {
        let noun = self.noun;
        if !self.knows(client, name)? {
            bail!("there is no {noun} {name}; `inver {noun} add` adds it");
        }
        self.put(client, name, fields)?;
        eprintln!("changed {noun} {name}");
        Ok(())
    }

    /// Deletes one.
    pub(super) fn delete(&self, options: &Options, name: &str) -> anyhow::Result<()> {
        options.reach.client()?.ask_node(Method::DELETE, &self.path_of(name), &[], None)?;
        eprintln!("deleted {} {name}", self.noun);
        Ok(())
    }

    /// Whether there is one of this name.
    pub(super) fn knows(&self, client: &Client, name: &str) -> anyhow::Result<bool> {
        client.knows(&self.path_of(name))
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}/{}", self.path, encoded(name))
    }

    fn put(&self, client: &Client, name: &str, fields: Fields) -> anyhow::Result<()> {
        let given = fields.iter().filter_map(|(field, value)| Some(((*field).to_owned(), value.clone()?)));
        let body = Value::Object(given.collect::<Map<String, Value>>());
        client.ask_node(Method::PUT, &self.path_of(name), &[], Some(&body))?;
        Ok(())
    }
}
