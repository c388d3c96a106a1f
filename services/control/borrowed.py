"""A desk over the embedded log, which a command takes for as long as it asks, where no service runs."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

from libs.log.open import open_sqlite
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from services.control.desk import Desk


@asynccontextmanager
async def borrowed(config: Config) -> AsyncIterator[Desk]:
    """`async with borrowed(config) as desk`. Raises CannotStart."""
    clock, metrics = SystemClock(), Metrics()
    dns = Dns([(at.address, at.port) for at in config.dns.servers], clock, config.dns.timeout_s)
    try:
        async with open_sqlite(config, clock) as (log, partitions), _nowhere() as nowhere:
            events = Events(
                log, clock, metrics, service="control", host=config.host.name, partitions=partitions,
                out=nowhere,
            )  # fmt: skip
            desk = Desk(Deps(config, log, clock, dns, events, metrics, partitions))
            tasks = [asyncio.ensure_future(each) for each in (*desk.followers(), events.run())]
            try:
                async with log.own("control", desk.register.claims):
                    await desk.restored()
                    yield desk
                    await events.flush()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await dns.close()


@asynccontextmanager
async def _nowhere() -> AsyncIterator[TextIO]:
    """Events of a command go to the log alone: standard output is for its answer."""
    with Path(os.devnull).open("w") as nowhere:  # noqa: ASYNC230 nothing is waited for
        yield nowhere
