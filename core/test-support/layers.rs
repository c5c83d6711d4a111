//! The module graph of a crate, read from its sources, for tests of its layers. Included by `#[path]`.
//!
//! An edge is a path in a `use` declaration or in code that starts with `crate`, `super` or `self`. Each path is resolved to
//! the file of the deepest module on it. Tests (`#[cfg(test)] mod tests`, `tests.rs`, `tests/`) and comments are left out, and so is
//! the crate root, which re-exports everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module's path below the crate root, one component per level.
type Module = Vec<String>;

/// A module and the modules that it may use, by top-level name.
pub(crate) type Rule = (&'static str, &'static [&'static str]);

/// Which file uses which.
pub(crate) struct Graph {
    edges: BTreeMap<Module, BTreeSet<Module>>,
}

impl Graph {
    /// Reads the sources of a crate.
    pub(crate) fn read(src: &Path) -> Self {
        let mut files = Vec::new();
        collect(src, &mut Vec::new(), &mut files);
        Self::parse(&files)
    }

    /// The graph of these modules, given with their sources.
    pub(crate) fn parse(files: &[(Module, String)]) -> Self {
        let modules: BTreeSet<&Module> = files.iter().map(|(module, _)| module).collect();
        let mut edges = BTreeMap::new();
        for (module, text) in files.iter().filter(|(module, _)| !module.is_empty()) {
            let used = paths(text).into_iter().filter_map(|path| resolve(module, &path, &modules));
            edges.insert(module.clone(), used.filter(|used| used != module).collect());
        }
        Self { edges }
    }

    /// Uses between top-level modules that the rules do not allow, modules without a rule, and allowed uses that do not
    /// exist.
    pub(crate) fn violations(&self, rules: &[Rule]) -> Vec<String> {
        let mut found = Vec::new();
        let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, targets) in &self.edges {
            let from = used.entry(module[0].as_str()).or_default();
            from.extend(
                targets.iter().map(|target| target[0].as_str()).filter(|target| *target != module[0]),
            );
        }
        for (module, targets) in &used {
            let Some((_, allowed)) = rules.iter().find(|(name, _)| name == module) else {
                found.push(format!("{module} has no rule"));
                continue;
            };
            let forbidden = targets.iter().filter(|target| !allowed.contains(target));
            found.extend(forbidden.map(|target| format!("{module} must not use {target}")));
            let unused = allowed.iter().filter(|target| !targets.contains(*target));
            found.extend(unused.map(|target| format!("{module} may use {target}, but does not")));
        }
        let stale = rules.iter().filter(|(name, _)| !used.contains_key(name));
        found.extend(stale.map(|(name, _)| format!("{name} has a rule, but does not exist")));
        found
    }

    /// Sets of files that all use each other, directly or not.
    pub(crate) fn circles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.edges.keys().map(|module| (module, self.reachable(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, targets) in &reached {
            let circle: Vec<String> = targets
                .iter()
                .filter(|target| reached.get(*target).is_some_and(|back| back.contains(module)))
                .map(|module| module.join("::"))
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reachable(&self, from: &Module) -> BTreeSet<&Module> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&Module> = self.edges.get(from).into_iter().flatten().collect();
        while let Some(module) = open.pop() {
            if seen.insert(module) {
                open.extend(self.edges.get(module).into_iter().flatten());
            }
        }
        seen
    }
}

/// Allowed uses of modules that are not listed before their user. Without any, the modules have no circle.
pub(crate) fn disordered(rules: &[Rule]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, (module, allowed)) in rules.iter().enumerate() {
        let is_below = |target: &&&str| rules[..at].iter().any(|(name, _)| name == *target);
        let above = allowed.iter().filter(|target| !is_below(target));
        found.extend(above.map(|target| format!("{module} is listed above {target}, which it uses")));
    }
    found
}

/// Modules and sources below a folder.
fn collect(dir: &Path, at: &mut Module, files: &mut Vec<(Module, String)>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if path.is_dir() {
            if name == "tests" {
                continue;
            }
            at.push(name);
            collect(&path, at, files);
            at.pop();
        } else if let Some(stem) = name.strip_suffix(".rs").filter(|stem| *stem != "tests") {
            let mut module = at.clone();
            if stem != "mod" && stem != "lib" {
                module.push(stem.to_owned());
            }
            files.push((module, std::fs::read_to_string(path).unwrap()));
        }
    }
}

/// All paths in a source that start with `crate`, `super` or `self`, `use` trees expanded.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default()).fold(
        String::new(),
        |mut code, line| {
            code.push_str(line);
            code.push(' ');
            code
        },
    );
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':') {
                expand(&code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads one `use` tree and adds its paths. Returns the rest of the text.
fn expand<'t>(text: &'t str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'t str {
    let mut rest = text.trim_start();
    let depth = prefix.len();
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        prefix.push(rest[..end].to_owned());
        rest = &rest[end..];
        let Some(after) = rest.strip_prefix("::") else { break };
        rest = after.trim_start();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.trim_start().starts_with('}') {
                rest = expand(rest, prefix, found).trim_start();
                rest = rest
                    .split_once(" as ")
                    .filter(|(head, _)| head.trim().is_empty())
                    .map_or(rest, |(_, tail)| {
                        tail.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                    });
                rest = rest.trim_start().strip_prefix(',').unwrap_or(rest);
                if rest.is_empty() {
                    break;
                }
            }
            prefix.truncate(depth);
            return rest.trim_start().strip_prefix('}').unwrap_or("");
        }
    }
    found.push(prefix.clone());
    prefix.truncate(depth);
    rest
}

/// The module that a path in `module` refers to.
fn resolve(module: &Module, path: &[String], modules: &BTreeSet<&Module>) -> Option<Module> {
    let mut at = Vec::new();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => rest = &path[1..],
        "self" => (at, rest) = (module.clone(), &path[1..]),
        _ => at = module.clone(),
    }
    while let Some((first, tail)) = rest.split_first().filter(|(first, _)| *first == "super") {
        debug_assert_eq!(first, "super");
        at.pop();
        rest = tail;
    }
    for part in rest {
        at.push(part.clone());
        if !modules.contains(&at) {
            at.pop();
            break;
        }
    }
    (!at.is_empty()).then_some(at)
}
