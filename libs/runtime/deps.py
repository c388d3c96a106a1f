"""What every service is given; main.py builds it in sight."""

from typing import NamedTuple

import structlog

from libs.log.contract import Log, Record
from libs.runtime.clock import Clock
from libs.runtime.config import Config
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics


class Deps(NamedTuple):
    """`partitions`: N of the installation, from its record or the default for a new one."""

    config: Config
    log: Log
    clock: Clock
    dns: Dns
    events: Events
    metrics: Metrics
    partitions: int

    def quarantined(self, record: Record) -> None:
        """Rule 8: a record that cannot be decoded stays where it is; it is counted, said and stepped over."""
        self.metrics.quarantined.labels(record.topic).inc()
        structlog.get_logger().error(
            "a record cannot be decoded and is stepped over",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )
