"""Every topic: its name, what its key is, its policy, who writes it, and the settings that are checked.

`backupmx topics apply` creates them, `topics check` and every service compare (a difference means 451 and no
truncation).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

DAY = 86_400_000
HOUR = 3_600_000

PARTITIONS = 12  # the default N; the installation record holds the real one, which never changes


class Topic(NamedTuple):
    """`compact`: the newest record of a key stays; `retention_s`: age in seconds after which records go
    (None: kept until truncated by the owner, or compacted); `config`: Kafka topic settings, without
    min.insync.replicas and the replication factor, which the topology decides."""

    name: str
    key: str
    writers: tuple[str, ...]
    compact: bool
    retention_s: float | None
    config: Mapping[str, str]


_ALL = {"message.timestamp.type": "LogAppendTime", "unclean.leader.election.enable": "false"}
_COMPACT = _ALL | {
    "cleanup.policy": "compact",
    "segment.bytes": str(64 * 2**20),
    "segment.ms": str(HOUR),
    "min.cleanable.dirty.ratio": "0.1",
    "min.compaction.lag.ms": str(HOUR),
    "delete.retention.ms": str(2 * DAY),
}


def _compact(name: str, key: str, *writers: str) -> Topic:
    return Topic(name, key, writers, True, None, _COMPACT)


def _ageing(name: str, key: str, retention_ms: int, *writers: str) -> Topic:
    config = _ALL | {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "segment.ms": str(retention_ms // 10),
    }
    return Topic(name, key, writers, False, retention_ms / 1000, config)


DOMAINS = _compact("domains", "domain; in partition 0 `@installation`, `access:` and a subject", "control")
CALLOUTS = _ageing("callouts", "recipient; sight:hash", HOUR, "ingest", "deliver", "control")
RECIPIENTS = _compact("recipients", "recipient; try:recipient; @domain", "verify")
CONTENT = Topic(
    "content",
    "mail id",
    ("ingest", "deliver"),
    False,
    None,
    _ALL
    | {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "segment.bytes": str(128 * 2**20),
        "segment.ms": str(12 * HOUR),
        "max.message.bytes": str(2**20),
    },
)
VERDICTS = _ageing("verdicts", "mail id", HOUR, "verify")
QUEUE = _compact("queue", "mail id", "ingest", "deliver")
PRIMARIES = _compact("primaries", "domain", "deliver")
REQUESTS = _ageing("requests", "domain", 30 * DAY, "control", "verify", "ingest")
EVENTS = _ageing("events", "domain", 7 * DAY, "ingest", "verify", "deliver", "control")

TOPICS: Mapping[str, Topic] = {
    topic.name: topic
    for topic in (DOMAINS, CALLOUTS, RECIPIENTS, CONTENT, VERDICTS, QUEUE, PRIMARIES, REQUESTS, EVENTS)
}

SIGHT = b"sight:"  # begins a key of `callouts` that is no recipient: no unquoted local part has a colon
# In partition 0 of `domains`; no domain contains an @ or a colon.
INSTALLATION_KEY = b"@installation"
ACCESS_KEY = b"access:"


def is_relay_domain(key: bytes) -> bool:
    """Is this the key of a relay domain's record in `domains`, and none of the others that are there?"""
    return b"@" not in key and b":" not in key


@lru_cache(maxsize=4096)
def partition_of(domain: str, partitions: int) -> int:
    """The partition number of everything that belongs to `domain` (lower-case A-label)."""
    return crc32(domain.encode("ascii")) % partitions
