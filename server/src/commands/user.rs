//! `inver user add`: writes a user with a hashed password, and SCRAM keys if wanted, into a configuration file.

use std::fs::File;
use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use rustix::fs::{FlockOperation, flock};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::passwords;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a user or change a user's password; the password is read from standard input.
    Add {
        /// The user's name.
        name: String,
        /// Configuration file to write to; without it, the line for its `[users]` section is printed.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Also write keys for SCRAM-SHA-256 and SCRAM-SHA-512.
        #[arg(long)]
        scram: bool,
    },
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Command::Add { name, config, scram } = self;
        if name.is_empty() {
            bail!("the user's name is empty");
        }
        let password = read_password(&name)?;
        if password.is_empty() {
            bail!("the password is empty");
        }
        let hashes = passwords::hashes(password.as_bytes(), scram)?;
        match config {
            Some(file) => {
                add(&file, &name, &hashes)?;
                eprintln!(
                    "added {name} to {}; `inver reload` or SIGHUP lets a running broker apply it",
                    file.display()
                );
            }
            None => {
                let mut line = Table::new();
                line.insert(&name, item(&hashes));
                print!("{line}");
            }
        }
        Ok(())
    }
}

/// Reads one line of standard input, without echo on a terminal.
pub(super) fn read_password(name: &str) -> anyhow::Result<String> {
    let input = stdin();
    let shown = if input.is_terminal() { tcgetattr(&input).ok() } else { None };
    if let Some(shown) = &shown {
        eprint!("password of {name}: ");
        stderr().flush()?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &hidden)?;
    }
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if let Some(shown) = &shown {
        tcsetattr(&input, OptionalActions::Flush, shown)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
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
        let mut file = File::create(&new)?;
        file.write_all(document.to_string().as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| new.display().to_string())?;
    if let Ok(before) = std::fs::metadata(file) {
        std::fs::set_permissions(&new, before.permissions())?;
    }
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
        add("bob smith", &["$3", "$4"]);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, "# only a comment\n").unwrap();
        add("ann", &["$1"]);
        let commented = std::fs::read_to_string(&file).unwrap();
        assert_eq!(commented, "# only a comment\n\n[users]\nann = \"$1\"\n");
        assert!(text.starts_with("# mine\ndata_dir = \"x\" # here\n"), "{text}");
        assert!(text.contains("ann = \"$2\"") && text.contains("\"bob smith\" = [\"$3\", \"$4\"]"), "{text}");
    }
}
