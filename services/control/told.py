"""What was told of domains, and what is to be posted: read back from `requests`, where it stands and nowhere
else. So no other control, and none after a restart, tells it again."""

from collections import deque
from contextlib import aclosing
from typing import NamedTuple

from libs.log.contract import BEGIN, Record
from libs.mail.codec import Undecodable, decode_request, encode
from libs.mail.notice import is_url, notice_id
from libs.mail.records import Notify, Posted
from libs.mail.settings import DAY_S
from libs.runtime.deps import Deps
from libs.topics import REQUESTS, partition_of
from services.control.door import WITHIN_S
from services.control.news import Told, telling
from services.control.register import Register


class Pending(NamedTuple):
    """To be posted; `at`: when it was asked for, by the log's clock."""

    request: Notify
    at: float


class Memory:
    """`told`: of each domain; `pending`: by id. `run` for ever."""

    def __init__(self, deps: Deps, register: Register) -> None:
        self.told: dict[str, Told] = {}
        self.pending: dict[str, Pending] = {}
        self._deps, self._register = deps, register
        self._positions: dict[int, int] = {}
        self._read: set[int] = set()  # partitions that were read to their ends once
        self._to: dict[str, deque[float]] = {}  # when each mail address was written to lately

    async def run(self) -> None:
        """Follow the topic."""
        every = dict.fromkeys(range(self._deps.partitions), BEGIN)
        async with aclosing(self._deps.log.follow(REQUESTS.name, every)) as batches:
            async for batch in batches:
                for record in batch.records:
                    self._fold(record)
                self._positions[batch.partition] = batch.position
                if batch.position >= batch.end:
                    self._read.add(batch.partition)

    @property
    def whole(self) -> bool:
        """Was all of it read?"""
        return len(self._read) == self._deps.partitions

    async def up_to_date(self, partition: int) -> bool:
        """Is what any control wrote there until now known? Raises LogError."""
        bounds = await self._deps.log.bounds(REQUESTS.name, partition)
        return self._positions.get(partition, 0) >= bounds.end

    def of(self, domain: str) -> Told:
        """It may be added to."""
        return self.told.setdefault(domain, Told())

    def lately(self, to: str, now: float) -> int:
        """How many notices went to this mail address in the 24 h before."""
        return sum(at > now - DAY_S for at in self._to.get(to, ()))

    async def write(self, request: Notify | Posted) -> None:
        """As the control that leads, and known from then on. Raises Refused, LogError."""
        claim = await self._register.claims.lead()
        partition, key = partition_of(request.domain, self._deps.partitions), request.domain.encode()
        stored = await self._deps.log.append(
            REQUESTS.name, partition, key, encode(request), within=WITHIN_S, claim=claim
        )
        self._apply(request, stored.time)

    def _fold(self, record: Record) -> None:
        try:
            request = None if record.value is None else decode_request(record.value)
        except Undecodable:
            return  # deliver's to say
        if isinstance(request, Notify | Posted):
            self._apply(request, record.time)

    def _apply(self, request: Notify | Posted, at: float) -> None:
        """Once more is nothing new: what is written here is read back, too."""
        if isinstance(request, Posted):
            self.pending.pop(notice_id(request.domain, request.cause, request.key), None)
            return
        each = telling(request, at)
        told = self.of(request.domain)
        if told.has(each.news, each.key):
            return
        told.add(each)
        if is_url(request.to):
            self.pending[notice_id(request.domain, request.cause, request.key)] = Pending(request, at)
        elif request.to:
            sent = self._to.setdefault(request.to, deque())
            sent.append(at)
            while sent and sent[0] <= at - DAY_S:
                sent.popleft()
