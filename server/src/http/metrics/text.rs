//! The text format of Prometheus, version 0.0.4: writing, and reading what the recorder has written.

use std::collections::HashMap;
use std::fmt::Write;

/// The kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Labels of a sample.
pub(in crate::http) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Metrics as text.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// The beginning of a family, before its samples.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample.
    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for character in text.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of one sample.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, labels: Labels<'_>, value: f64) {
        self.family(name, kind, help);
        self.sample(name, labels, value);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// Samples by name, read from a text.
#[derive(Debug, Default)]
pub(in crate::http) struct Samples<'a>(HashMap<&'a str, Vec<(&'a str, f64)>>);

impl<'a> Samples<'a> {
    /// The samples of a text that this process has written.
    pub(in crate::http) fn read(text: &'a str) -> Samples<'a> {
        let mut samples: HashMap<&str, Vec<(&str, f64)>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            if let Ok(value) = value.parse() {
                samples.entry(name).or_default().push((labels.trim_end_matches('}'), value));
            }
        }
        Samples(samples)
    }

    /// The sum of the samples of a name that have all these labels.
    pub(in crate::http) fn sum(&self, name: &str, labels: Labels<'_>) -> f64 {
        let all = self.0.get(name).into_iter().flatten();
        let has = |text: &str| {
            labels.iter().all(|(label, value)| {
                let pair = format!("{label}=\"{value}\"");
                text.split(',').any(|part| part == pair)
            })
        };
        all.filter(|(text, _)| has(text)).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut text = Exposition::default();
        text.family("a_total", Kind::Counter, "Things.");
        text.sample("a_total", &[("kind", "x\"y\\\n"), ("of", "p")], 2.0);
        text.sample("a_total", &[("kind", "z"), ("of", "p")], 3.5);
        text.single("b", Kind::Gauge, "One.", &[], 7.0);
        let text = text.into_text();
        assert_eq!(
            text,
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{kind=\"x\\\"y\\\\\\n\",of=\"p\"} 2\n\
             a_total{kind=\"z\",of=\"p\"} 3.5\n# HELP b One.\n# TYPE b gauge\nb 7\n"
        );
        let samples = Samples::read(&text);
        assert_eq!(samples.sum("a_total", &[("of", "p")]), 5.5);
        assert_eq!(samples.sum("a_total", &[("kind", "z")]), 3.5);
        assert_eq!((samples.sum("b", &[]), samples.sum("c", &[])), (7.0, 0.0));
    }
}
