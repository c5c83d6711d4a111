//! Answers of the API as a table or as JSON.

use std::io::Write;

use clap::ValueEnum;
use serde_json::Value;

/// Characters of the widest cell of a table.
const CELL_MAX: usize = 60;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Aligned columns.
    Table,
    /// JSON.
    Json,
}

/// Prints the items of a list with these columns, or all the fields of one object below each other.
pub(super) fn print(output: Output, value: &Value, columns: &[String]) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match (output, value) {
        (Output::Json, value) => writeln!(out, "{value:#}")?,
        (Output::Table, Value::Array(items)) => out.write_all(table(items, columns).as_bytes())?,
        (Output::Table, Value::Object(fields)) => {
            let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
            for (name, value) in fields {
                match value {
                    Value::Array(items) if items.iter().any(Value::is_object) => {
                        writeln!(out, "{name}:")?;
                        for line in table(items, &[]).lines() {
                            writeln!(out, "  {line}")?;
                        }
                    }
                    value => writeln!(out, "{name:width$}  {}", text(value))?,
                }
            }
        }
        (Output::Table, Value::Null) => {}
        (Output::Table, value) => writeln!(out, "{}", text(value))?,
    }
    out.flush()
}

/// The names of columns.
pub(super) fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A table of objects; without columns, of all fields of the first.
fn table(items: &[Value], columns: &[String]) -> String {
    let names: Vec<String> = match items.first() {
        _ if !columns.is_empty() => columns.to_vec(),
        Some(Value::Object(fields)) => fields.keys().cloned().collect(),
        _ => return items.iter().map(|item| text(item) + "\n").collect(),
    };
    let mut rows = vec![names.iter().map(|name| name.to_uppercase()).collect::<Vec<String>>()];
    for item in items {
        rows.push(names.iter().map(|name| item.get(name).map(text).unwrap_or_default()).collect());
    }
    let widths: Vec<usize> = (0..names.len())
        .map(|at| {
            rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A value in a cell. Control characters are escaped: names and bodies come from clients.
fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        Value::Object(fields)
            if fields.len() == 1 && (fields.contains_key("text") || fields.contains_key("base64")) =>
        {
            fields.values().next().and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}={}", text_of(value)))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    };
    let escaped: String = text.chars().flat_map(escape).collect();
    match escaped.char_indices().nth(CELL_MAX) {
        Some((at, _)) => format!("{}…", escaped.get(..at).unwrap_or_default()),
        None => escaped,
    }
}

fn text_of(value: &Value) -> String {
    text(value)
}

fn escape(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_aligned_and_escape_control_characters() {
        let items = [json!({"name": "a", "ready": 10}), json!({"name": "bb\u{1b}", "ready": null})];
        assert_eq!(table(&items, &[]), "NAME      READY\na         10\nbb\\u{1b}  -\n");
        assert_eq!(table(&items, &["ready".into()]), "READY\n10\n-\n");
        assert_eq!(table(&[], &["a".into()]), "A\n");
    }
}
