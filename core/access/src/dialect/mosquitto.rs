//! Mosquitto's `acl_file`, read as rules.
//!
//! | line | rules |
//! |---|---|
//! | `topic [read\|write\|readwrite\|deny] FILTER` | of the user of the last `user` line; before the first: of anonymous clients |
//! | `user NAME` | the following `topic` lines are of this user |
//! | `pattern [read\|write\|readwrite\|deny] FILTER` | of everybody; `%u` and `%c` stand for the user's name and the client id |
//! | `# …`, empty | none |
//!
//! `read` is [`Operation::Receive`], `write` is [`Operation::Write`]; without a word a line means both. As in Mosquitto,
//! every subscription is accepted and what it brings is decided message by message, so a file adds one rule that allows
//! everybody to subscribe. `${username}` and `${clientid}`, EMQX's placeholders, are understood like `%u` and `%c`, in
//! `topic` lines too.
//!
//! Differences: `deny` of a pattern wins over a user's own lines too; a name or client id that contains `/` never fits a
//! pattern, as one that contains `+` or `#`.

use crate::pattern::{Pattern, PatternError};
use crate::rule::{Effect, Operation, Operations, Principal, ResourceKind, Rule, RuleId};

/// The dialect of the rules.
pub const DIALECT: &str = "mosquitto";

/// Variables of [`Pattern`]s, which cannot be written in a file as plain text.
const VARIABLES: [&str; 4] = ["{username}", "{client_id}", "{namespace}", "{vhost}"];

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct AclFileError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: LineError,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It begins with another word.
    #[error("expected `user`, `topic` or `pattern`")]
    Unknown,
    /// `user` without a name.
    #[error("a user name is missing")]
    NoUser,
    /// `topic` or `pattern` without a filter.
    #[error("a topic filter is missing")]
    NoFilter,
    /// The word before the filter.
    #[error("unknown access `{0}`: one of read, write, readwrite, deny")]
    Access(String),
    /// The filter has text that has another meaning in rules.
    #[error("`{0}` cannot be part of a topic filter here")]
    Variable(&'static str),
    /// The filter is not one.
    #[error(transparent)]
    Filter(#[from] PatternError),
}

/// The rules of a file, in its order. An empty file allows to subscribe and nothing else.
pub fn rules(text: &str) -> Result<Vec<Rule>, AclFileError> {
    let subscribe = Operations::of(&[Operation::Subscribe]);
    let mut rules = vec![rule(Principal::Anyone, Pattern::Any, subscribe, Effect::Allow)];
    let mut principal = Principal::Anonymous;
    for (number, line) in text.lines().enumerate() {
        read_line(line.trim(), &mut principal, &mut rules)
            .map_err(|what| AclFileError { line: number + 1, what })?;
    }
    Ok(rules)
}

fn read_line(line: &str, principal: &mut Principal, rules: &mut Vec<Rule>) -> Result<(), LineError> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim_start_matches(' ');
    match word {
        "user" if rest.trim().is_empty() => return Err(LineError::NoUser),
        "user" => *principal = Principal::User(rest.trim().to_owned()),
        "topic" => rules.push(read_rule(principal.clone(), rest, false)?),
        "pattern" => rules.push(read_rule(Principal::Anyone, rest, true)?),
        _ => return Err(LineError::Unknown),
    }
    Ok(())
}

fn read_rule(principal: Principal, text: &str, is_pattern: bool) -> Result<Rule, LineError> {
    let (access, filter) = match text.split_once(' ') {
        Some((access, filter)) => (access, filter.trim_start_matches(' ')),
        None => ("readwrite", text),
    };
    if filter.is_empty() {
        return Err(LineError::NoFilter);
    }
    let (read, write) = (Operation::Receive, Operation::Write);
    let (operations, effect) = match access {
        "read" => (Operations::of(&[read]), Effect::Allow),
        "write" => (Operations::of(&[write]), Effect::Allow),
        "readwrite" => (Operations::of(&[read, write]), Effect::Allow),
        "deny" => (Operations::of(&[read, write]), Effect::Deny),
        other => return Err(LineError::Access(other.to_owned())),
    };
    if let Some(variable) = VARIABLES.into_iter().find(|variable| {
        // EMQX's placeholder of the user name holds the text of a variable.
        filter.replace("${username}", "").contains(variable)
    }) {
        return Err(LineError::Variable(variable));
    }
    let mut filter = filter.replace("${username}", "{username}").replace("${clientid}", "{client_id}");
    if is_pattern {
        filter = filter.replace("%u", "{username}").replace("%c", "{client_id}");
    }
    let pattern = Pattern::Filter(filter);
    pattern.check()?;
    Ok(rule(principal, pattern, operations, effect))
}

fn rule(principal: Principal, pattern: Pattern, operations: Operations, effect: Effect) -> Rule {
    Rule {
        id: RuleId(0),
        principal,
        namespace: None,
        kind: ResourceKind::Address,
        pattern,
        operations,
        effect,
        host: None,
        dialect: DIALECT.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decision::{EffectiveRules, Rules, Subject};
    use crate::user::Tags;

    /// The example of Mosquitto's manual, with denials.
    const FILE: &str = "\
# This affects access control for clients with no username.
topic read $SYS/#
topic readwrite public/my topic

user roger
topic foo/bar
topic   read   all/#
topic deny all/secret

user ann
topic write up/+

# This affects all clients.
pattern write $SYS/broker/connection/%c/state
pattern readwrite users/%u/#
pattern read devices/${clientid}
";

    fn of(user: Option<&str>, client_id: &str) -> EffectiveRules {
        let tags = Tags::default();
        let host = [127, 0, 0, 1].into();
        let subject = Subject { user, tags: &tags, client_id, namespace: "/", host };
        Rules::new(rules(FILE).unwrap().into_iter().map(Arc::new)).for_subject(&subject)
    }

    #[track_caller]
    fn check(rules: &EffectiveRules, address: &str, reads: bool, writes: bool) {
        let may = |operation| rules.decide(ResourceKind::Address, address, operation).allowed;
        assert_eq!((may(Operation::Receive), may(Operation::Write)), (reads, writes), "{address}");
    }

    #[test]
    fn a_file_means_what_it_means_to_mosquitto() {
        let anonymous = of(None, "c1");
        check(&anonymous, "$SYS/broker/uptime", true, false);
        check(&anonymous, "public/my topic", true, true);
        check(&anonymous, "foo/bar", false, false);
        check(&anonymous, "users//x", false, false);
        check(&anonymous, "devices/c1", true, false);
        let roger = of(Some("roger"), "c2");
        check(&roger, "foo/bar", true, true);
        check(&roger, "all/x", true, false);
        check(&roger, "all/secret", false, false);
        check(&roger, "public/my topic", false, false);
        check(&roger, "users/roger/x/y", true, true);
        check(&roger, "users/ann", false, false);
        check(&roger, "$SYS/broker/connection/c2/state", false, true);
        check(&roger, "$SYS/broker/connection/c1/state", false, false);
        let ann = of(Some("ann"), "+");
        check(&ann, "up/x", false, true);
        check(&ann, "devices/x", false, false);
        // Subscriptions are decided at delivery.
        assert!(ann.decide_filter("#", Operation::Subscribe).allowed);
        assert!(ann.decide_filter("$SYS/#", Operation::Subscribe).allowed);
    }

    #[test]
    fn variables_of_topic_lines_are_plain_text() {
        let read = rules("user ann\ntopic %u/%c\ntopic ${username}/x\n").unwrap();
        let patterns: Vec<_> = read.into_iter().skip(1).map(|rule| rule.pattern).collect();
        assert_eq!(patterns, [Pattern::Filter("%u/%c".into()), Pattern::Filter("{username}/x".into())]);
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text: &str| rules(text).map_err(|error| (error.line, error.what));
        assert_eq!(error("topic a\nbridge x"), Err((2, LineError::Unknown)));
        assert_eq!(error("user "), Err((1, LineError::NoUser)));
        assert_eq!(error("topic"), Err((1, LineError::NoFilter)));
        assert_eq!(error("topic all a/b"), Err((1, LineError::Access("all".into()))));
        assert_eq!(error("pattern read a/{username}"), Err((1, LineError::Variable("{username}"))));
        assert!(matches!(error("\n\ntopic a/#/b"), Err((3, LineError::Filter(_)))));
        assert_eq!(rules("topic a\r\n").unwrap().len(), 2, "lines may end as on Windows");
    }
}
