"""What every service is given; main.py builds it in sight."""

from collections.abc import Callable, MutableMapping
from typing import NamedTuple, TypeVar

import structlog

from libs.log.contract import Log, Record
from libs.log.table import Table
from libs.runtime.clock import Clock
from libs.runtime.config import Config
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics

CONTENT_ROOM = 256 * 2**20  # of a process: its services that hold contents, and the embedded log, share it

T = TypeVar("T")


class Deps(NamedTuple):
    """`partitions`: N of the installation, from its record or the default for a new one; `content_room`:
    octets of content that a service may have in memory (rule 13)."""

    config: Config
    log: Log
    clock: Clock
    dns: Dns
    events: Events
    metrics: Metrics
    partitions: int
    content_room: int = CONTENT_ROOM

    def table(
        self,
        topic: str,
        decode: Callable[[Record], T | None],
        changed: Callable[[Record], None] = lambda _: None,
        values: MutableMapping[bytes, T] | None = None,
    ) -> Table[T]:
        """A full replica of `topic`; run() it. `decode`, `changed` and `values`: see Table."""
        every = range(self.partitions)
        return Table(
            self.log,
            topic,
            every,
            decode,
            self.clock,
            quarantined=self.quarantined,
            changed=changed,
            values=values,
        )

    def quarantined(self, record: Record) -> None:
        """Rule 8: a record that cannot be decoded stays where it is; it is counted, said and stepped over."""
        self.metrics.quarantined.labels(record.topic).inc()
        structlog.get_logger().error(
            "a record cannot be decoded and is stepped over",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )
