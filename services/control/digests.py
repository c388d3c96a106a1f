"""Asks for the daily notices to the contacts of domains. What was asked for stands on `requests` and nowhere
else: it is read back, so that no other control, and none after a restart, asks again."""

import secrets
from contextlib import aclosing

import structlog

from libs.log.contract import BEGIN, LogError, Record
from libs.mail.codec import Undecodable, decode_request, encode
from libs.mail.records import Notify
from libs.runtime.deps import Deps
from libs.topics import REQUESTS, partition_of
from services.control import digest
from services.control.digest import Told
from services.control.door import WITHIN_S
from services.control.places import Places
from services.control.register import Register

EVERY_S = 60.0
BY = "control"


class Digests:
    """`run` for ever; `tend` now and then."""

    def __init__(self, deps: Deps, register: Register, places: Places) -> None:
        self._deps, self._register, self._places = deps, register, places
        self._told: dict[str, Told] = {}
        self._at_end: set[int] = set()
        self._looked = float("-inf")

    async def run(self) -> None:
        """Follow what was asked for."""
        every = dict.fromkeys(range(self._deps.partitions), BEGIN)
        async with aclosing(self._deps.log.follow(REQUESTS.name, every)) as batches:
            async for batch in batches:
                for record in batch.records:
                    self._fold(record)
                if batch.position >= batch.end:
                    self._at_end.add(batch.partition)

    def _fold(self, record: Record) -> None:
        try:
            request = None if record.value is None else decode_request(record.value)
        except Undecodable:
            return  # deliver's to say
        if isinstance(request, Notify) and request.cause == digest.PARKED:
            self._told[request.domain] = Told(request.day, record.time)

    async def tend(self) -> None:
        """One round: ask for what is due, as the control that leads. A log that is away is asked later."""
        clock, now = self._deps.clock, self._deps.events.log_time()
        if clock.mono() - self._looked < EVERY_S or now is None or not self._register.claims.leads:
            return
        if len(self._at_end) < self._deps.partitions:
            return
        self._looked = clock.mono()
        parked = self._places.parked()
        for domain, day in digest.due(parked, self._register.book().domains, self._told, now):
            request = Notify(secrets.token_hex(8), domain, BY, digest.PARKED, day)
            partition, key = partition_of(domain, self._deps.partitions), domain.encode()
            try:
                stored = await self._deps.log.append(
                    REQUESTS.name, partition, key, encode(request), within=WITHIN_S
                )
            except LogError as error:
                structlog.get_logger().warning(
                    "a notice is not asked for now", domain=domain, error=str(error)
                )
                return
            self._told[domain] = Told(day, stored.time)
