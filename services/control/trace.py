"""What happened to one mail: an index of the topic `events`, and the events themselves when asked."""

import asyncio
from array import array
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from typing import Any

import msgspec

from libs.log.contract import BEGIN, Gone, Record, Unavailable
from libs.mail.address import BadAddress, mailbox
from libs.mail.codec import Undecodable
from libs.mail.event import Event, decode_events
from libs.runtime.deps import Deps
from libs.topics import EVENTS, partition_of
from services.control.domains import Unknown
from services.control.rates import COUNTED, Rates

ROOM = 250_000  # mails that can be traced; the oldest go first
READY_S = 30.0
ABOUT_S = 120.0  # a week of events is read


class _Part(msgspec.Struct, frozen=True):
    """The part of an event that is looked at while it comes by."""

    id: str = ""
    type: str = ""
    domain: str = ""


class Trail:
    """Follows all of `events`; `of` reads the events of one mail; `rates`: of what came last."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._places: dict[str, array[int]] = {}  # id -> domain number and offset, again and again
        self._domains: list[str] = []
        self._numbers: dict[bytes, int] = {}
        self._decoder = msgspec.json.Decoder(_Part)
        self._at_end: set[int] = set()
        self._ready = asyncio.Event()
        self.rates = Rates()

    async def run(self) -> None:
        """For ever."""
        every = dict.fromkeys(range(self._deps.partitions), BEGIN)
        async with aclosing(self._deps.log.follow(EVENTS.name, every)) as batches:
            async for batch in batches:
                for record in batch.records:
                    self._fold(record.key, record.offset, record.value or b"")
                if batch.position >= batch.end:
                    self._at_end.add(batch.partition)
                    if len(self._at_end) == self._deps.partitions:
                        self._ready.set()

    async def of(self, mail_id: str) -> list[dict[str, Any]]:
        """The events of a mail, oldest first, as in their JSON. Raises Unknown, Unavailable."""
        try:
            async with asyncio.timeout(READY_S):
                await self._ready.wait()
        except TimeoutError as error:
            raise Unavailable("the events are still being read: try again later") from error
        places = list(self._places.get(mail_id, ()))
        found: list[dict[str, Any]] = []
        for number, offset in zip(places[::2], places[1::2], strict=True):
            domain = self._domains[number]
            partition = partition_of(domain, self._deps.partitions)
            try:
                record = await self._deps.log.read(EVENTS.name, partition, offset, domain.encode())
            except Gone:
                continue  # older than the topic keeps
            events = msgspec.json.Decoder().decode_lines(record.value or b"")
            found += (event for event in events if event.get("id") == mail_id)
        if not found:
            raise Unknown(f"no event of the last days names a mail {mail_id}")
        return sorted(found, key=lambda event: event.get("event_time", 0.0))

    async def about(self, address: str) -> list[dict[str, Any]]:
        """The events that name a mailbox (normal form) as sender or recipient, oldest first: all of the topic
        is read. Raises Unknown, Unavailable."""
        # As JSON has it; the domain may be written in another way.
        needle = msgspec.json.encode(address.rpartition("@")[0])[1:-1].lower()
        found: list[dict[str, Any]] = []
        every = range(self._deps.partitions)
        await self._read(every, lambda record: found.extend(_naming(record.value or b"", address, needle)))
        if not found:
            raise Unknown(f"no event of the last days names {address}")
        return sorted(found, key=lambda event: event.get("event_time", 0.0))

    async def of_domain(self, domain: str) -> list[Event]:
        """All events of a domain's mail and of its primary. Raises Unavailable."""
        key, found = domain.encode(), list[Event]()

        def see(record: Record) -> None:
            if record.key == key:
                with suppress(Undecodable):  # it was counted when it was indexed
                    found.extend(decode_events(record.value or b""))

        await self._read([partition_of(domain, self._deps.partitions)], see)
        return found

    async def _read(self, partitions: Iterable[int], see: Callable[[Record], None]) -> None:
        """`see` all that `events` has of these now. Raises Unavailable."""
        starts = dict.fromkeys(partitions, BEGIN)
        left = set(starts)
        try:
            async with asyncio.timeout(ABOUT_S):
                async with aclosing(self._deps.log.follow(EVENTS.name, starts)) as batches:
                    async for batch in batches:
                        for record in batch.records:
                            see(record)
                        if batch.position >= batch.end:
                            left.discard(batch.partition)
                        if not left:
                            return
        except TimeoutError as error:
            raise Unavailable("the events could not all be read in time") from error

    def _fold(self, key: bytes, offset: int, value: bytes) -> None:
        try:
            told = self._decoder.decode_lines(value)
        except msgspec.MsgspecError:
            self._deps.metrics.quarantined.labels(EVENTS.name).inc()
            return
        if mail_ids := {each.id for each in told if each.id}:
            self._note(key, offset, mail_ids)
        if self._ready.is_set():  # what is read at the start is of another time
            for each in told:
                if each.type in COUNTED:
                    self.rates.note(each.domain, each.type, self._deps.clock.mono())

    def _note(self, key: bytes, offset: int, mail_ids: Iterable[str]) -> None:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._domains)
            self._domains.append(key.decode("ascii", "replace"))
        for mail_id in mail_ids:
            self._places.setdefault(mail_id, array("q")).extend((number, offset))
            if len(self._places) > ROOM:
                del self._places[next(iter(self._places))]


def _naming(value: bytes, address: str, needle: bytes) -> list[dict[str, Any]]:
    """The events of a record that name `address`; what cannot be read was counted when it was indexed."""
    if needle not in value.lower():  # most records name others: they are not decoded
        return []
    try:
        events = msgspec.json.Decoder(dict[str, Any]).decode_lines(value)
    except msgspec.MsgspecError:
        return []
    return [
        each for each in events if address in (_normal(each.get("sender")), _normal(each.get("recipient")))
    ]


def _normal(text: object) -> str:
    try:
        return mailbox(text).key if isinstance(text, str) and text else ""
    except BadAddress:
        return ""
