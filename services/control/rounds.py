"""Has each relay domain examined again and again, by the control that leads.

No more than one examination begins in a second and a few go on at once, so that nobody who serves many of
the domains is stormed. Who is known to exist is read from the log for all domains of a partition together.
"""

import asyncio
from typing import NamedTuple

import structlog

from libs.log.contract import LogError
from libs.log.table import Table
from libs.mail.knowledge import PrimaryFacts
from libs.runtime.deps import Deps
from libs.topics import partition_of
from services.control.checkups import PACE_S, Checkups
from services.control.consulting import Consulting
from services.control.recipients import Few
from services.control.register import Register
from services.control.roll import Rolls

AT_ONCE = 20

log = structlog.get_logger()


class _Read(NamedTuple):
    """`at`: monotonic seconds."""

    at: float
    few: dict[str, Few]


class Rounds:
    """`run` for ever. `facts`: a table that is followed."""

    def __init__(
        self,
        deps: Deps,
        register: Register,
        rolls: Rolls,
        facts: Table[PrimaryFacts],
        checkups: Checkups,
        consulting: Consulting,
    ) -> None:
        self._deps, self._register, self._rolls, self._facts = deps, register, rolls, facts
        self._checkups, self._consulting = checkups, consulting
        self._read: dict[int, _Read] = {}
        self._reading = asyncio.Lock()

    async def run(self) -> None:
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                await slots.acquire()
                while (name := self._checkups.turn()) is None:  # noqa: ASYNC110 it has no bell
                    await asyncio.sleep(PACE_S / 4)
                group.create_task(self._one(name)).add_done_callback(lambda _: slots.release())

    async def _one(self, name: str) -> None:
        """An examination that fails has its next turn; it is no reason to end control."""
        outcome = "failed"
        try:
            few = (await self._census(partition_of(name, self._deps.partitions))).get(name, Few())
            domain = self._register.book().domains.get(name)
            if domain is not None:
                facts = self._facts.get(b"@" + name.encode())
                facts = facts if facts is not None and facts.era == domain.era else None
                await self._consulting.examine(domain, few, facts)
            outcome = "done"
        except LogError as error:
            log.warning("a domain is not examined now", domain=name, error=str(error))
        except Exception:
            log.exception("the examination of a domain failed by a bug", domain=name)
        self._deps.metrics.examinations.labels(outcome).inc()

    async def _census(self, partition: int) -> dict[str, Few]:
        """Not older than the time between two examinations. Raises LogError."""
        async with self._reading:
            read, now = self._read.get(partition), self._deps.clock.mono()
            if read is None or now - read.at >= self._deps.config.timing.examine_s:
                read = self._read[partition] = _Read(now, await self._rolls.census(partition))
        return read.few
