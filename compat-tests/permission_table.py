"""One table of users, rules and operations, from which the cells of every protocol's permission tests are generated.

A cell is a user, an operation of a protocol, and one of two sets of resources: those called `mine…` and those called
`other…`. What a cell must answer follows from the rules by `decide`, which looks at every rule, and from what the
operation needs.
"""

import base64
import hashlib
import itertools
import re
from dataclasses import dataclass

ALL = ("all",)
HERE, ELSEWHERE = "127.0.0.1", "192.0.2.1"
RESOURCES = ("mine", "other")


def password(text):
    salt = b"salt"
    digest = hashlib.sha256(salt + text.encode()).digest()
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return "$salted-sha256$before$" + "$".join(encoded)


def user(name, tags=(), limits=""):
    """A user of the configuration, whose password is its name."""
    return f'[users.{name}]\npasswords = ["{password(name)}"]\ntags = {list(tags)}\n{limits}\n'


@dataclass(frozen=True)
class Rule:
    """A rule of one user, or of a tag."""

    kind: str | None
    operations: tuple
    form: str | None = None
    pattern: str = ""
    effect: str = "allow"
    host: str | None = None
    tag: str | None = None

    def text(self, name):
        """The rule in the configuration."""
        fields = {"tag" if self.tag else "user": self.tag or name, "namespace": "/", "kind": self.kind, self.form: self.pattern,
                  "effect": self.effect, "host": self.host}
        lines = [f"{key} = '{value}'" for key, value in fields.items() if key and value is not None]
        return "\n".join(["[[permissions]]", *lines, f"operations = {list(self.operations)}", ""])

    def matches(self, kind, name, who):
        if self.kind not in (None, kind) or self.host not in (None, HERE):
            return False
        pattern = self.pattern.replace("{username}", who)
        match self.form:
            case None:
                return True
            case "name":
                return name == pattern
            case "prefix":
                return name.startswith(pattern)
            case "regex":
                return re.search(pattern, name) is not None
            case "filter":
                return covers(pattern, name)

    def has(self, operations):
        return self.operations == ALL or bool(set(self.operations) & set(operations))


def covers(pattern, name):
    """Whether an MQTT filter matches an address, or all that another filter matches."""
    levels, other = pattern.split("/"), name.split("/")
    for at, level in enumerate(levels):
        if level == "#":
            return True
        if at >= len(other) or other[at] == "#" or (level != "+" and level != other[at]):
            return False
    return len(levels) == len(other)


# What else allows an operation, beside rules that name it.
INCLUDED_IN = {
    "create": ("configure",), "delete": ("configure",), "describe": ("configure", "delete", "alter", "read", "write"),
    "describe-configs": ("alter-configs",),
}


@dataclass(frozen=True)
class User:
    rules: tuple
    tags: tuple = ()


def decide(who, kind, name, operation):
    """Whether a user of the table may do this: a denial wins, administrators need no rule."""
    rules = [rule for rule in USERS[who].rules if rule.matches(kind, name, who)]
    denied_with = (operation, "configure") if operation in ("create", "delete") else (operation,)
    if any(rule.effect == "deny" and rule.has(denied_with) for rule in rules):
        return False
    return "administrator" in USERS[who].tags or any(
        rule.effect == "allow" and rule.has((operation, *INCLUDED_IN.get(operation, ()))) for rule in rules)


# An entry without rights is enough to connect.
CONNECT = Rule("namespace", ("connect",))
# What the users of RabbitMQ's three rights may do, they may do to these names; with the pattern in each kind's form.
OWN = r"^(mine|amq\.(gen-|default$|direct$))"
RIGHTS = {
    "c": (("topic", ("configure",)), ("exchange", ("configure",)), ("group", ("delete",)), ("session", ("resume",))),
    "w": (("topic", ("write",)), ("exchange", ("write",)), ("address", ("write",))),
    "r": (("topic", ("read",)), ("exchange", ("read",)), ("group", ("read",)), ("address", ("subscribe", "receive"))),
}


def of_rights(rights):
    own = [Rule(kind, operations, *(("filter", "mine/#") if kind == "address" else ("regex", OWN)))
           for right in rights for kind, operations in RIGHTS[right]]
    return User((CONNECT, *own))


def on(form, operations, names, **more):
    """Rules with the same operations on a name of each kind."""
    return tuple(Rule(kind, operations, form if kind != "address" or form == "name" else "filter", name, **more)
                 for kind, name in names.items())


EXACT = {"topic": "mine.q", "exchange": "mine.x", "group": "mine.g", "address": "mine/a", "session": "mine-literal"}
USERS = {
    **{f"u{''.join(some)}": of_rights(some) for count in range(4) for some in itertools.combinations("cwr", count)},
    "creator": User((CONNECT, *on("prefix", ("create",), {"topic": "mine", "exchange": "mine"}))),
    "deleter": User((CONNECT, *on("prefix", ("delete",), {"topic": "mine", "exchange": "mine", "group": "mine"}))),
    "describer": User((CONNECT, Rule("cluster", ("describe", "describe-configs")),
                       *on("prefix", ("describe", "describe-configs"), {"topic": "mine", "group": "mine"}))),
    "alterer": User((CONNECT, Rule("cluster", ("alter", "alter-configs", "create", "idempotent-write")),
                     *on("prefix", ("alter", "alter-configs"), {"topic": "mine"}))),
    "literal": User((CONNECT, *on("name", ALL, EXACT))),
    # Everything but some of it: a denial wins.
    "fenced": User((Rule(None, ALL), *on("prefix", ("write", "read"), {"topic": "other", "exchange": "other", "group": "other"},
                                         effect="deny"),
                    Rule("address", ("write", "receive"), "filter", "other/#", effect="deny"),
                    Rule("session", ("resume",), "prefix", "other", effect="deny"),
                    Rule("cluster", ("alter",), effect="deny"))),
    "local": User((Rule(None, ALL, host=HERE),)),
    "remote": User((CONNECT, Rule(None, ALL, host=ELSEWHERE))),
    "tagged": User((CONNECT, *on("prefix", ("read", "write", "subscribe", "receive"),
                                 {"topic": "mine", "exchange": "mine", "group": "mine", "address": "mine/#"}, tag="staff")), ("staff",)),
    # The user's own name in a pattern.
    "mine": User((CONNECT, *on("prefix", ALL, {"topic": "{username}", "exchange": "{username}", "group": "{username}",
                                               "address": "{username}/#", "session": "{username}"}))),
    "root": User((), ("administrator",)),
    "rooted": User((Rule("topic", ("read", "describe"), "prefix", "other", effect="deny"),
                    Rule("address", ("subscribe",), "filter", "other/#", effect="deny")), ("administrator",)),
}


def configuration():
    """All users and rules of the table, for a configuration file."""
    parts = []
    for name, each in USERS.items():
        parts.append(user(name, each.tags))
        parts += [rule.text(name) for rule in each.rules]
    return "\n".join(parts)


# ---- What operations need: (kind, name, operation) in the order in which they are asked for, {n} being `mine` or `other`
# and {u} the user. A list is a choice: one of them is enough.

AMQP = {
    "declare a queue": [("topic", "{n}.q", "create")],
    "inspect a queue": [("topic", "{n}.q", "describe")],
    "delete a queue": [("topic", "{n}.none", "delete")],
    "purge": [("topic", "{n}.q", "read")],
    "get": [("topic", "{n}.q", "read")],
    "consume": [("topic", "{n}.q", "read")],
    "bind a queue": [("topic", "{n}.q", "write"), ("exchange", "{n}.x", "read")],
    "unbind a queue": [("topic", "{n}.q", "write"), ("exchange", "{n}.x", "read")],
    "bind an exchange": [("exchange", "{n}.x", "write"), ("exchange", "{n}.y", "read")],
    "unbind an exchange": [("exchange", "{n}.x", "write"), ("exchange", "{n}.y", "read")],
    "declare an exchange": [("exchange", "{n}.x", "create")],
    "inspect an exchange": [("exchange", "{n}.x", "describe")],
    "delete an exchange": [("exchange", "{n}.none", "delete")],
    "publish": [("exchange", "{n}.x", "write")],
    "publish to the default exchange": [("exchange", "amq.default", "write")],
    "declare with a dead-letter exchange": [
        ("topic", "{n}.dead", "create"), ("topic", "{n}.dead", "read"), ("exchange", "{n}.x", "write"),
        ("topic", "{n}.dead", "delete")],
    "declare with an alternate exchange": [
        ("exchange", "{n}.alt", "create"), ("exchange", "{n}.alt", "read"), ("exchange", "{n}.x", "write"),
        ("exchange", "{n}.alt", "delete")],
    "declare a queue named by the broker": [("topic", "amq.gen-", "create")],
    "consume replies": [],
}

TOPIC, GROUP = "{n}.q", "{n}.g"
# A client asks for a topic's partitions first.
SEEN = ("topic", TOPIC, "describe")
KAFKA = {
    "produce": [SEEN, ("topic", TOPIC, "write")],
    "produce with a producer id": [
        [("cluster", "", "idempotent-write"), *(("topic", f"{each}.q", "write") for each in RESOURCES)],
        SEEN, ("topic", TOPIC, "write")],
    "fetch": [SEEN, ("topic", TOPIC, "read")],
    "describe a topic": [("topic", TOPIC, "describe")],
    "list offsets": [SEEN],
    "create a topic": [[("topic", "{n}.new", "create"), ("cluster", "", "create")]],
    "delete a topic": [("topic", "{n}.none", "delete")],
    "delete records": [SEEN, ("topic", TOPIC, "delete")],
    "create partitions": [("topic", TOPIC, "alter")],
    "describe settings": [("topic", TOPIC, "describe-configs")],
    "alter settings": [("topic", TOPIC, "alter-configs")],
    "describe settings of the broker": [("cluster", "", "describe-configs")],
    "join a group": [SEEN, ("group", GROUP, "read")],
    "describe a group": [("group", GROUP, "describe")],
    "delete a group": [("group", "{n}.none", "delete")],
    "commit offsets": [("group", GROUP, "read"), ("topic", TOPIC, "read")],
    "read offsets": [("group", GROUP, "describe"), ("topic", TOPIC, "describe")],
    "delete offsets": [("group", GROUP, "delete"), ("topic", TOPIC, "read")],
    "list ACLs": [("cluster", "", "describe")],
    "describe SCRAM users": [("cluster", "", "describe")],
    "create an ACL": [("cluster", "", "alter")],
    "delete ACLs": [("cluster", "", "alter")],
    "delete a SCRAM user": [("cluster", "", "alter")],
}

ADDRESS = "{n}/a"
MQTT = {
    "publish at QoS 0": [("address", ADDRESS, "write")],
    "publish at QoS 1": [("address", ADDRESS, "write")],
    "publish at QoS 2": [("address", ADDRESS, "write")],
    "retain": [("address", ADDRESS, "write")],
    "leave a will": [("address", ADDRESS, "write")],
    "subscribe": [("address", ADDRESS, "subscribe")],
    "subscribe to a filter": [("address", "{n}/#", "subscribe")],
    "share a subscription": [("address", ADDRESS, "subscribe"), ("address", ADDRESS, "receive")],
    "receive": [("address", ADDRESS, "subscribe"), ("address", ADDRESS, "receive")],
    "resume a session of another user": [("session", "{n}-{u}", "resume")],
}


def refused_needs(who, needs, resource):
    """The needs that the user has not, as (kind, name, operation); none if the cell is allowed."""
    refused = []
    for choice in needs:
        choice = choice if isinstance(choice, list) else [choice]
        named = [(kind, name.format(n=resource, u=who), operation) for kind, name, operation in choice]
        if not any(decide(who, *need) for need in named):
            refused.append(named[0])
    return refused


def cells(operations):
    """Every (user, operation, resource, refused needs)."""
    for who, (what, needs), resource in itertools.product(USERS, operations.items(), RESOURCES):
        yield who, what, resource, refused_needs(who, needs, resource)
