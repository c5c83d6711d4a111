//! `inver doctor`: checks what an operator would check, before a start or beside a running broker.

mod checks;

use anyhow::bail;
use inver_broker::Clock;

use super::ConfigArgument;
use crate::config::{ConfigError, Problem, load};
use crate::jwt;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Ok,
    Warning,
    Error,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    /// What was checked.
    check: &'static str,
    text: String,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Finding {
        Finding { severity: Severity::Ok, check, text: text.into() }
    }

    fn warning(check: &'static str, text: impl Into<String>) -> Finding {
        Finding { severity: Severity::Warning, check, text: text.into() }
    }

    fn error(check: &'static str, text: impl Into<String>) -> Finding {
        Finding { severity: Severity::Error, check, text: text.into() }
    }
}

/// What a check of the configuration found: warnings, or what is wrong.
fn of_problems(found: Result<Vec<Problem>, ConfigError>) -> Vec<Finding> {
    let (problems, finding): (_, fn(&'static str, String) -> Finding) = match found {
        Ok(warnings) => (warnings, Finding::warning),
        Err(ConfigError(errors)) => (errors, Finding::error),
    };
    let show = |Problem { place, what }| finding("configuration", format!("{place}: {what}"));
    problems.into_iter().map(show).collect()
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut findings = Vec::new();
        match load(self.config.file(), ConfigArgument::variables()) {
            Ok(loaded) => {
                let place =
                    self.config.file().map_or("defaults".to_owned(), |file| file.display().to_string());
                findings.push(Finding::ok("configuration", format!("{place}, and environment variables")));
                findings.extend(of_problems(Ok(loaded.warnings)));
                findings.extend(of_problems(jwt::check(&loaded.config)));
                if let Err(error) = loaded.config.access() {
                    findings.push(Finding::error("configuration", format!("{error:#}")));
                }
                findings.extend(checks::run(&loaded.config, self.config.file(), Clock::system().now_ms()));
            }
            Err(error) => findings.extend(of_problems(Err(error))),
        }
        for Finding { severity, check, text } in &findings {
            let severity = match severity {
                Severity::Ok => "ok",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            println!("{severity:7}  {check}: {text}");
        }
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        if errors > 0 {
            bail!("{errors} errors, {warnings} warnings");
        }
        println!("no errors, {warnings} warnings");
        Ok(())
    }
}
