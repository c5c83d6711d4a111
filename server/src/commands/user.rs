//! `inver user`: users of the running broker, and `inver user add --config` for those of a configuration file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use hyper::Method;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::ConfigArgument;
use super::client::{Login, read_password};
use super::named::{Named, Options};
use crate::passwords;

/// Users of the running broker.
const USERS: Named = Named {
    path: "/users",
    noun: "user",
    columns: &[
        "name",
        "tags",
        "namespace",
        "disabled",
        "credentials",
        "connections_max",
        "channels_max",
        "source",
    ],
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the users, those of the configuration included.
    List {
        #[command(flatten)]
        options: Options,
    },
    /// Add a user to the running broker, to a configuration file, or print the line for one; the password is read from
    /// standard input.
    Add(Box<Add>),
    /// Change a user of the running broker; what is not named stays as it is.
    Set(Box<Set>),
    /// Delete a user of the running broker with its permission rules. Its connections are closed.
    Delete {
        /// The user's name.
        name: String,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The user's name.
    name: String,
    /// Configuration file to write to, instead of the running broker. Such a user may do everything.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["print", "tags", "namespace", "full_access"])]
    config: Option<PathBuf>,
    /// Print the line for the section `[users]` of a configuration file.
    #[arg(long, conflicts_with_all = ["tags", "namespace", "full_access"])]
    print: bool,
    /// In a configuration file: also write keys for SCRAM-SHA-256 and SCRAM-SHA-512. A running broker has them always.
    #[arg(long)]
    scram: bool,
    /// Tags, separated by commas: administrator, monitoring, policymaker, management, impersonator, or any other.
    #[arg(long, value_delimiter = ',')]
    tags: Vec<String>,
    /// The namespace of connections that name none.
    #[arg(long)]
    namespace: Option<String>,
    /// Allow everything, in every namespace. Without it the user may do nothing until it has permissions or the tag
    /// administrator.
    #[arg(long)]
    full_access: bool,
    #[command(flatten)]
    login: Login,
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// The user's name.
    name: String,
    /// Read a new password from standard input.
    #[arg(long)]
    password: bool,
    /// Tags, separated by commas; an empty text for none.
    #[arg(long, value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// The namespace of connections that name none; an empty text for none.
    #[arg(long)]
    namespace: Option<String>,
    /// Whether the user may not log in.
    #[arg(long)]
    disabled: Option<bool>,
    /// Connections at the same time; 0: no limit of its own.
    #[arg(long)]
    connections_max: Option<u32>,
    /// Channels at the same time; 0: no limit of its own.
    #[arg(long)]
    channels_max: Option<u32>,
    #[command(flatten)]
    options: Options,
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::List { options } => USERS.list(&options),
            Command::Add(add) => add.run(),
            Command::Set(set) => set.run(),
            Command::Delete { name, options } => USERS.delete(&options, &name),
        }
    }
}

impl Add {
    fn run(self) -> anyhow::Result<()> {
        let Add { name, config, print, scram, .. } = &self;
        if name.is_empty() {
            bail!("the user's name is empty");
        }
        if let Some(file) = config {
            let hashes = passwords::hashes(new_password(name)?.as_bytes(), *scram)?;
            add(file, name, &hashes)?;
            let shown = file.display();
            eprintln!("added {name} to {shown}; `inver reload` or SIGHUP lets a running broker apply it");
        } else if *print {
            let hashes = passwords::hashes(new_password(name)?.as_bytes(), *scram)?;
            let mut line = Table::new();
            line.insert(name, item(&hashes));
            print!("{line}");
        } else {
            self.send()?;
        }
        Ok(())
    }

    /// Adds the user to the running broker.
    fn send(&self) -> anyhow::Result<()> {
        let name = &self.name;
        let client = self.login.client(&ConfigArgument::of_environment())?;
        if USERS.knows(&client, name)? {
            bail!("there is a user {name} already; `inver user set` changes it");
        }
        let fields = [
            ("password", Some(json!(new_password(name)?))),
            ("tags", Some(json!(self.tags))),
            ("namespace", self.namespace.as_ref().map(|namespace| json!(namespace))),
        ];
        USERS.add(&client, name, &fields)?;
        if self.full_access {
            let rule = json!({"user": name, "operations": ["all"]});
            client.ask_node(Method::POST, "/permissions", &[], Some(&rule))?;
        }
        if !self.full_access && !self.tags.iter().any(|tag| tag == "administrator") {
            eprintln!("{name} may do nothing yet: `inver permission add --user {name} …` allows something");
        }
        Ok(())
    }
}

impl Set {
    fn run(&self) -> anyhow::Result<()> {
        let client = self.options.reach.client()?;
        let password = if self.password { Some(json!(new_password(&self.name)?)) } else { None };
        let fields = [
            ("password", password),
            ("tags", self.tags.as_ref().map(|tags| json!(tags))),
            ("namespace", self.namespace.as_ref().map(|namespace| json!(namespace))),
            ("disabled", self.disabled.map(Value::from)),
            ("connections_max", self.connections_max.map(Value::from)),
            ("channels_max", self.channels_max.map(Value::from)),
        ];
        USERS.set(&client, &self.name, &fields)
    }
}

fn new_password(name: &str) -> anyhow::Result<String> {
    let password = read_password(name)?;
    if password.is_empty() {
        bail!("the password is empty");
    }
    Ok(password)
}

/// One hash as a text, several as a list.
fn item(hashes: &[String]) -> Item {
    match hashes {
        [hash] => value(hash),
        several => value(several.iter().collect::<Array>()),
    }
}

/// Writes the user into the file and keeps its other contents and comments. Several at once take turns.
fn add(file: &Path, name: &str, hashes: &[String]) -> anyhow::Result<()> {
    // The file itself is replaced, so its folder is locked.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let turn = File::open(folder).with_context(|| folder.display().to_string())?;
    flock(&turn, FlockOperation::LockExclusive).with_context(|| folder.display().to_string())?;
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    let mut document: DocumentMut = text.parse().with_context(|| file.display().to_string())?;
    if !document.contains_key("users") {
        // Text after the last key, such as comments, stays before the new section.
        let mut table = Table::new();
        let before = document.trailing().as_str().unwrap_or_default().to_string();
        document.set_trailing("");
        let gap = if document.is_empty() && before.is_empty() { "" } else { "\n" };
        table.decor_mut().set_prefix(format!("{before}{gap}"));
        document.insert("users", Item::Table(table));
    }
    let users = document.entry("users").or_insert_with(|| Item::Table(Table::new()));
    let Some(users) = users.as_table_like_mut() else {
        bail!("`users` in {} is not a table", file.display())
    };
    users.insert(name, item(hashes));
    // Written to another file and renamed, so that no reader sees half of it.
    let new = file.with_extension("new");
    let write = || {
        // One left behind, or put there by another user of this machine, is not written to.
        let _left_behind = std::fs::remove_file(&new);
        let mut created = OpenOptions::new().write(true).create_new(true).open(&new)?;
        if let Ok(before) = std::fs::metadata(file) {
            // The broker's user must still be able to read it.
            let _only_root_may = std::os::unix::fs::fchown(&created, Some(before.uid()), Some(before.gid()));
            created.set_permissions(before.permissions())?;
        }
        created.write_all(document.to_string().as_bytes())?;
        created.sync_all()
    };
    write().with_context(|| new.display().to_string())?;
    std::fs::rename(&new, file).with_context(|| file.display().to_string())?;
    drop(turn);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_or_changing_a_user_keeps_the_rest_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("inver.toml");
        let add = |name, hashes: &[&str]| {
            add(&file, name, &hashes.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        };
        add("ann", &["$1"]);
        std::fs::write(&file, "# mine\ndata_dir = \"x\" # here\n\n[users]\nann = \"$1\"\n").unwrap();
        add("ann", &["$2"]);
        // Another user of this machine may have put this where the new file is written first.
        let aim = folder.path().join("aim");
        std::fs::write(&aim, "precious").unwrap();
        std::os::unix::fs::symlink(&aim, file.with_extension("new")).unwrap();
        add("bob smith", &["$3", "$4"]);
        assert_eq!(std::fs::read_to_string(&aim).unwrap(), "precious");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, "# only a comment\n").unwrap();
        add("ann", &["$1"]);
        let commented = std::fs::read_to_string(&file).unwrap();
        assert_eq!(commented, "# only a comment\n\n[users]\nann = \"$1\"\n");
        assert!(text.starts_with("# mine\ndata_dir = \"x\" # here\n"), "{text}");
        assert!(text.contains("ann = \"$2\"") && text.contains("\"bob smith\" = [\"$3\", \"$4\"]"), "{text}");
    }
}
