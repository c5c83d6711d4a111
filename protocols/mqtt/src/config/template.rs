//! Templates of topics: `{1}`, `{2}` … are what the wildcards of a filter matched, `{client_id}` and `{user}` the client's.

/// The values of a template.
#[derive(Clone, Copy, Default)]
pub(crate) struct Values<'a> {
    /// What each wildcard matched, in order.
    pub(crate) matched: &'a [&'a str],
    pub(crate) client_id: &'a str,
    /// Empty for a client without a user.
    pub(crate) user: &'a str,
}

/// Fills a template. Places that are none stay as they are.
pub(crate) fn fill(template: &str, values: Values<'_>) -> String {
    let mut filled = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((place, after)) = after.split_once('}') else { break };
        filled.push_str(before);
        match (place, place.parse::<usize>()) {
            ("client_id", _) => filled.push_str(values.client_id),
            ("user", _) => filled.push_str(values.user),
            (_, Ok(number)) => {
                let matched = number.checked_sub(1).and_then(|at| values.matched.get(at));
                filled.push_str(matched.copied().unwrap_or_default());
            }
            _ => filled.extend(["{", place, "}"]),
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// Whether the client's name would put a wildcard in place of a name.
pub(crate) fn is_widened(template: &str, client_id: &str, user: &str) -> bool {
    let has = |place: &str, name: &str| template.contains(place) && name.contains(['+', '#']);
    has("{client_id}", client_id) || has("{user}", user)
}

/// Checks a template of a filter with so many wildcards.
pub(crate) fn check(template: &str, wildcards: usize) -> Result<(), String> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((place, after)) = after.split_once('}') else {
            return Err(format!("`{template}`: a `{{` without its `}}`"));
        };
        let is_number = place.parse().is_ok_and(|number: usize| (1..=wildcards).contains(&number));
        if !is_number && !matches!(place, "client_id" | "user") {
            return Err(format!(
                "`{template}`: `{{{place}}}` is not `{{client_id}}`, `{{user}}` or the number of one of {wildcards} wildcards"
            ));
        }
        rest = after;
    }
    Ok(())
}

/// The number of wildcards of a topic filter; none if it is not valid.
pub(crate) fn wildcards(filter: &str) -> Option<usize> {
    let (mut count, mut levels) = (0, filter.split('/').peekable());
    while let Some(level) = levels.next() {
        match level {
            "+" => count += 1,
            "#" if levels.peek().is_none() => count += 1,
            level if level.contains(['+', '#', '\0']) => return None,
            _ => {}
        }
    }
    (!filter.is_empty()).then_some(count)
}

/// What the wildcards of a valid filter match of a topic, or of a filter taken as one; none if it does not match.
pub(crate) fn matched<'t>(filter: &str, topic: &'t str) -> Option<Vec<&'t str>> {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        // [MQTT-4.7.2-1]
        return None;
    }
    let mut found = Vec::new();
    let mut rest = Some(topic);
    for step in filter.split('/') {
        if step == "#" {
            found.push(rest.unwrap_or_default());
            return Some(found);
        }
        let (level, behind) = match rest?.split_once('/') {
            Some((level, behind)) => (level, Some(behind)),
            None => (rest?, None),
        };
        match step {
            "+" => found.push(level),
            step if step == level => {}
            _ => return None,
        }
        rest = behind;
    }
    rest.is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_with_what_was_matched() {
        for (filter, topic, template, filled) in [
            ("a/+/b/#", "a/1/b/2/3", "x/{1}/{2}/{client_id}/{user}", Some("x/1/2/3/c/ann")),
            ("a/#", "a", "x/{1}", Some("x/")),
            ("#", "a//b", "{1}", Some("a//b")),
            ("a/b", "a/b", "c", Some("c")),
            ("a/+", "a", "x", None),
            ("a/+", "a/b/c", "x", None),
            ("#", "$SYS/a", "x", None),
            ("+/a", "b/+/a", "x", None),
        ] {
            let matched = matched(filter, topic);
            let values = |matched| Values { matched, client_id: "c", user: "ann" };
            let found = matched.as_ref().map(|matched| fill(template, values(matched)));
            assert_eq!(found.as_deref(), filled, "{filter} {topic}");
        }
        assert_eq!(["a/+/#", "a", "a/#/b", "a+", ""].map(wildcards), [Some(2), Some(0), None, None, None]);
        assert!(check("a/{1}/{user}", 1).is_ok());
        for bad in ["{2}", "{0}", "{x}", "{1"] {
            assert!(check(bad, 1).is_err(), "{bad}");
        }
    }
}
