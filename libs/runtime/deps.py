"""What every service is given; main.py builds it in sight."""

from typing import NamedTuple

from libs.log.contract import Log
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
