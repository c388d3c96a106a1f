"""What each service may do on Kafka and no more: its ACLs, derived from who writes and reads each topic.

One principal a service, `backupmx-SERVICE`. Whoever runs `backupmx topics apply` has rights of his own, which
are not here. What no rule allows is denied, given StandardAuthorizer and
`allow.everyone.if.no.acl.found=false`.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from libs import topics

SERVICES = ("ingest", "verify", "deliver", "control")

# Who follows a topic or reads records of it. `domains` is everybody's: rule 7 asks for a whole replica.
READERS: Mapping[str, tuple[str, ...]] = {
    topics.DOMAINS.name: SERVICES,
    topics.CALLOUTS.name: ("ingest", "verify"),
    topics.RECIPIENTS.name: SERVICES,
    topics.CONTENT.name: ("verify", "deliver"),
    topics.VERDICTS.name: ("ingest",),
    topics.QUEUE.name: ("deliver", "control"),
    topics.PRIMARIES.name: SERVICES,
    topics.REQUESTS.name: ("verify", "deliver", "control"),
    topics.EVENTS.name: ("control",),
}
TRUNCATES: Mapping[str, str] = {topics.CONTENT.name: "deliver"}
GROUPS = ("verify", "deliver", "control")  # the groups, each of the service of its name


class Rule(NamedTuple):
    """`resource`: topic, group or cluster. `name`: Kafka's, with the prefix. `operations`: as Kafka calls
    them; Read, Write and Delete include Describe."""

    resource: str
    name: str
    operations: tuple[str, ...]


def principal(service: str) -> str:
    """The name of the service's user, without `User:`."""
    return f"backupmx-{service}"


def rules(service: str, prefix: str = "") -> Iterator[Rule]:
    """All that `service` may do on a cluster where topics and groups begin with `prefix`.

    Every service compares the settings of every topic, and looks at the disks (KIP-827: Describe of the
    cluster). Writing once includes the idempotent producer (KIP-679).
    """
    for name, topic in topics.TOPICS.items():
        may = {
            "Read": service in READERS[name],
            "Write": service in topic.writers,
            "Delete": TRUNCATES.get(name) == service,
            "Describe": True,
            "DescribeConfigs": True,
        }
        yield Rule("topic", prefix + name, tuple(operation for operation, allowed in may.items() if allowed))
    if service in GROUPS:
        yield Rule("group", prefix + service, ("Read", "Describe"))
    yield Rule("cluster", "kafka-cluster", ("Describe",))


def command(service: str, rule: Rule) -> str:
    """The rule as arguments of Kafka's kafka-acls.sh, after those that say where the cluster is."""
    of = "--cluster" if rule.resource == "cluster" else f"--{rule.resource} {rule.name}"
    operations = " ".join(f"--operation {operation}" for operation in rule.operations)
    return f"--add --allow-principal User:{principal(service)} {operations} {of}"


def strimzi(rule: Rule) -> dict[str, object]:
    """The rule as an element of `spec.authorization.acls` of a Strimzi KafkaUser (type simple)."""
    resource = {"type": rule.resource}
    if rule.resource != "cluster":
        resource |= {"name": rule.name, "patternType": "literal"}
    return {"type": "allow", "resource": resource, "operations": list(rule.operations), "host": "*"}
