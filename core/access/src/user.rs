//! Users: names, tags, credentials and limits.

use serde::{Deserialize, Serialize};

use crate::credential::{Credential, HashMemory};

/// A role that a user has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tag {
    /// May do everything, in every namespace.
    Administrator,
    /// May see everything.
    Monitoring,
    /// May manage policies of its namespaces.
    Policymaker,
    /// May use the management interface for its namespaces.
    Management,
    /// May publish with the user id of another user.
    Impersonator,
    /// A tag without a meaning of its own, for rules.
    Custom(String),
}

impl Tag {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Tag::Administrator => "administrator",
            Tag::Monitoring => "monitoring",
            Tag::Policymaker => "policymaker",
            Tag::Management => "management",
            Tag::Impersonator => "impersonator",
            Tag::Custom(name) => name,
        }
    }

    /// The tag of a name.
    #[must_use]
    pub fn named(name: &str) -> Tag {
        match name {
            "administrator" => Tag::Administrator,
            "monitoring" => Tag::Monitoring,
            "policymaker" => Tag::Policymaker,
            "management" => Tag::Management,
            "impersonator" => Tag::Impersonator,
            other => Tag::Custom(other.to_owned()),
        }
    }
}

/// The tags of a user, sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tags(Vec<Tag>);

impl Tags {
    /// Whether it has `tag`.
    #[must_use]
    pub fn contains(&self, tag: &Tag) -> bool {
        self.0.binary_search(tag).is_ok()
    }

    /// The tags in order.
    pub fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.0.iter()
    }
}

impl FromIterator<Tag> for Tags {
    fn from_iter<I: IntoIterator<Item = Tag>>(tags: I) -> Tags {
        let mut tags: Vec<Tag> = tags.into_iter().collect();
        tags.sort();
        tags.dedup();
        Tags(tags)
    }
}

/// Limits of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLimits {
    /// Connections at the same time; none: no limit of its own.
    pub connections_max: Option<u32>,
    /// Channels at the same time, of all its connections; none: no limit of its own.
    pub channels_max: Option<u32>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Whether it may not log in.
    pub disabled: bool,
    /// Its tags.
    pub tags: Tags,
    /// The namespace of its connections that name none; none: the default namespace.
    pub default_namespace: Option<String>,
    /// What its passwords are verified against; any of them may match. Without one it cannot log in with a password.
    pub credentials: Vec<Credential>,
    /// Its limits.
    pub limits: UserLimits,
}

impl User {
    /// A user that cannot log in yet.
    #[must_use]
    pub fn new(name: &str) -> User {
        User {
            name: name.to_owned(),
            disabled: false,
            tags: Tags::default(),
            default_namespace: None,
            credentials: Vec::new(),
            limits: UserLimits::default(),
        }
    }

    /// Whether `password` matches one of its credentials. Costs CPU time by design.
    #[must_use]
    pub fn verify(&self, password: &[u8], memory: &mut HashMemory) -> bool {
        !self.disabled && self.credentials.iter().any(|each| each.verify_with(password, memory))
    }
}
