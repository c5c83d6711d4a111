//! Users of the configuration.
//!
//! | form | meaning |
//! |---|---|
//! | `ann = "hash"`, `ann = ["hash", …]` | a user who may do everything, in every namespace |
//! | `[users.ann]`, a table | a user who may do what its tags and rules allow |
//!
//! Keys of the table: `passwords`, `tags`, `namespace`, `disabled`, `connections_max`, `channels_max`.

use std::collections::BTreeMap;

use inver_access::{
    Effect, Operations, Pattern, Principal, ResourceKind, Rule, RuleId, Tag, User, UserLimits,
};
use inver_settings::{Form, Setting};
use serde::de::{Deserialize, Deserializer, Error};
use toml_edit::{Array, InlineTable, Value};

use super::values::inline_table;
use crate::passwords;

/// Hashes of one user; a wrong password is checked against each.
const HASHES_PER_USER_MAX: usize = 8;

/// The users of the configuration by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConfiguredUsers(pub(crate) BTreeMap<String, ConfiguredUser>);

/// A user of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConfiguredUser {
    /// Hashes of its passwords, any of which may match.
    pub(crate) passwords: Vec<String>,
    /// The names of its tags.
    pub(crate) tags: Vec<String>,
    /// The namespace of its connections that name none.
    pub(crate) namespace: Option<String>,
    /// Whether it may not log in.
    pub(crate) disabled: bool,
    /// Bounds of what it has open at the same time.
    pub(crate) limits: UserLimits,
    /// Whether it is written as hashes only, and so may do everything.
    pub(crate) has_full_access: bool,
}

#[derive(serde::Deserialize)]
#[serde(
    untagged,
    expecting = "expected a hash or a list of hashes, or a table with `passwords`, `tags`, `namespace`, `disabled`, \
                 `connections_max`, `channels_max`"
)]
enum Written {
    One(String),
    Many(Vec<String>),
    Table(Table),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    passwords: Option<Vec<String>>,
    password: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    namespace: Option<String>,
    #[serde(default)]
    disabled: bool,
    connections_max: Option<u32>,
    channels_max: Option<u32>,
}

impl From<Written> for ConfiguredUser {
    fn from(written: Written) -> ConfiguredUser {
        let short =
            |passwords| ConfiguredUser { passwords, has_full_access: true, ..ConfiguredUser::default() };
        match written {
            Written::One(hash) => short(vec![hash]),
            Written::Many(hashes) => short(hashes),
            Written::Table(table) => ConfiguredUser {
                passwords: table.password.into_iter().chain(table.passwords.into_iter().flatten()).collect(),
                tags: table.tags,
                namespace: table.namespace,
                disabled: table.disabled,
                limits: UserLimits {
                    connections_max: table.connections_max,
                    channels_max: table.channels_max,
                },
                has_full_access: false,
            },
        }
    }
}

impl ConfiguredUsers {
    /// The users as access control knows them.
    pub(crate) fn users(&self) -> anyhow::Result<Vec<User>> {
        let users = self.0.iter().map(|(name, user)| {
            let credentials: Result<Vec<_>, _> =
                user.passwords.iter().map(|hash| passwords::parse(hash)).collect();
            Ok(User {
                disabled: user.disabled,
                tags: user.tags.iter().map(|tag| Tag::named(tag)).collect(),
                default_namespace: user.namespace.clone(),
                credentials: credentials?,
                limits: user.limits,
                ..User::new(name)
            })
        });
        users.collect()
    }

    /// The rules of users who may do everything.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        let full = self.0.iter().filter(|(_, user)| user.has_full_access);
        full.flat_map(|(name, _)| {
            ResourceKind::ALL.into_iter().map(|kind| Rule {
                id: RuleId(0),
                principal: Principal::User(name.clone()),
                namespace: None,
                kind,
                pattern: Pattern::Any,
                operations: Operations::ALL,
                effect: Effect::Allow,
                host: None,
                dialect: String::new(),
            })
        })
        .collect()
    }
}

impl Setting for ConfiguredUsers {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let users: BTreeMap<String, Written> = BTreeMap::deserialize(value)?;
        let users: BTreeMap<String, ConfiguredUser> =
            users.into_iter().map(|(name, written)| (name, written.into())).collect();
        for (name, user) in &users {
            if name.is_empty() {
                return Err(D::Error::custom("a user's name is empty"));
            }
            let count = user.passwords.len();
            if (count == 0 && user.has_full_access) || count > HASHES_PER_USER_MAX {
                return Err(D::Error::custom(format_args!(
                    "`{name}` needs 1 to {HASHES_PER_USER_MAX} hashes: `inver user add {name}` writes them"
                )));
            }
            if let Some(error) = user.passwords.iter().find_map(|hash| passwords::parse(hash).err()) {
                return Err(D::Error::custom(format_args!(
                    "the password of `{name}` is not usable ({error}): `inver user add {name}` writes a hash"
                )));
            }
        }
        Ok(ConfiguredUsers(users))
    }

    fn show(&self) -> String {
        inline_table(self.0.iter().map(|(name, user)| (name.as_str(), user.show())))
    }
}

impl ConfiguredUser {
    fn show(&self) -> Value {
        let list = |texts: &[String]| texts.iter().collect::<Array>();
        match self.passwords.as_slice() {
            [hash] if self.has_full_access => hash.into(),
            several if self.has_full_access => list(several).into(),
            several => {
                let mut table = InlineTable::new();
                table.insert("passwords", list(several).into());
                table.insert("tags", list(&self.tags).into());
                if let Some(namespace) = &self.namespace {
                    table.insert("namespace", namespace.into());
                }
                let limits = [
                    ("connections_max", self.limits.connections_max),
                    ("channels_max", self.limits.channels_max),
                ];
                for (name, limit) in limits {
                    if let Some(limit) = limit {
                        table.insert(name, i64::from(limit).into());
                    }
                }
                if self.disabled {
                    table.insert("disabled", true.into());
                }
                table.into()
            }
        }
    }
}
