//! Groups as administration sees them.

use bytes::Bytes;
use inver_broker::{Completion, Group, GroupCoordinator, GroupError, GroupMember, TopicId};

use super::consumer::ConsumerGroup;
use super::group::State;
use super::share::ShareGroup;
use super::{ClientGroup, Coordinator};
use crate::codec::error_code::ErrorCode;
use crate::codec::reader::Reader;
use crate::codec::text::Str;

impl GroupCoordinator for Coordinator {
    fn groups(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.groups.read().keys().map(ToString::to_string).collect();
        ids.extend(self.consumers.read().keys().map(ToString::to_string));
        ids.extend(self.shares.read().keys().map(ToString::to_string));
        ids
    }

    fn group(&self, id: &str) -> Option<Group> {
        let id = Str::from(id);
        let of_consumers = |group: &ConsumerGroup| self.shown_consumers(group);
        let of_shares = |group: &ShareGroup| self.shown_shares(group);
        self.with_group(&id, shown)
            .or_else(|| self.with_consumer_group(&id, of_consumers))
            .or_else(|| self.with_share_group(&id, of_shares))
    }

    fn delete(&self, id: &str) -> Result<Completion, GroupError> {
        Coordinator::delete(self, &Str::from(id)).map_err(|error| match error {
            ErrorCode::NON_EMPTY_GROUP => GroupError::InUse(id.to_owned()),
            ErrorCode::COORDINATOR_NOT_AVAILABLE => match self.broker.log().failure() {
                Some(failure) => GroupError::Log(failure.into()),
                None => GroupError::Unknown(id.to_owned()),
            },
            _ => GroupError::Unknown(id.to_owned()),
        })
    }
}

impl Coordinator {
    fn shown_consumers(&self, group: &ConsumerGroup) -> Group {
        let name = |(topic, partition): &(u128, i32)| {
            let topic = self.namespace.topic_by_id(TopicId(*topic))?;
            Some((topic.name().to_owned(), u32::try_from(*partition).ok()?))
        };
        let members = group.members().map(|member| GroupMember {
            id: member.id.to_string(),
            client: member.client_id.to_string(),
            address: member.client_host.to_string(),
            assigned: member.assigned.iter().filter_map(name).collect(),
        });
        Group { state: group.state().name(), protocol: "kafka", members: members.collect() }
    }

    fn shown_shares(&self, group: &ShareGroup) -> Group {
        let partitions = |(topic, count): (u128, i32)| {
            let topic = self.namespace.topic_by_id(TopicId(topic))?;
            let name = topic.name().to_owned();
            Some((0..u32::try_from(count).ok()?).map(move |partition| (name.clone(), partition)))
        };
        let members = group.members().map(|member| GroupMember {
            id: member.id.to_string(),
            client: member.client_id.to_string(),
            address: member.client_host.to_string(),
            assigned: group.topics_of(member).into_iter().filter_map(partitions).flatten().collect(),
        });
        Group { state: group.state().name(), protocol: "kafka", members: members.collect() }
    }
}

/// Assignments are those of a stable group only: in other states they are about to change.
fn shown(group: &ClientGroup) -> Group {
    let stable = group.state() == State::Stable;
    let members = group.members().map(|member| GroupMember {
        id: member.id.to_string(),
        client: member.client_id.to_string(),
        address: member.client_host.to_string(),
        assigned: if stable { assigned_partitions(member.assignment.clone()) } else { Vec::new() },
    });
    Group { state: group.state().name(), protocol: "kafka", members: members.collect() }
}

/// The partitions of a consumer's assignment, which begins with a version, then the topics with their partitions. An
/// assignment that cannot be decoded has none.
fn assigned_partitions(assignment: Bytes) -> Vec<(String, u32)> {
    let mut reader = Reader::new(assignment);
    let mut assigned = Vec::new();
    let mut read = || {
        reader.i16().ok()?;
        for _ in 0..reader.count(false, 6).ok()?? {
            let topic = reader.string(false).ok()??;
            for _ in 0..reader.count(false, 4).ok()?? {
                assigned.push((topic.to_string(), u32::try_from(reader.i32().ok()?).ok()?));
            }
        }
        Some(())
    };
    match read() {
        Some(()) => assigned,
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_name_partitions() {
        let assignment = b"\0\x01\0\0\0\x01\0\x02ab\0\0\0\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff";
        assert_eq!(assigned_partitions(assignment[..].into()), [("ab".into(), 0), ("ab".into(), 3)]);
        assert!(assigned_partitions(assignment[..16].into()).is_empty());
        assert!(assigned_partitions(Bytes::new()).is_empty());
    }
}
