"""The recipients of a domain: read from the log when asked, so that nobody keeps a copy; what the operator
says of them goes to verify, which alone writes them."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from libs.log.contract import BEGIN, Batch, Record, Unavailable
from libs.log.table import Table
from libs.mail.codec import Undecodable, decode_recipient, encode
from libs.mail.knowledge import PrimaryFacts, PrimaryState
from libs.runtime.deps import Deps
from libs.topics import CALLOUTS, RECIPIENTS, partition_of
from services.control import domains
from services.control.domains import Malformed, Refused
from services.control.door import SAID, WITHIN_S
from services.control.recipients import Census, Change, Few, Roll, change, deliverable, told
from services.control.register import Register

READ_S = 30.0
CHANGES = 5000  # in a page


class Rolls:
    """Of every domain."""

    def __init__(self, deps: Deps, register: Register, primaries: Table[PrimaryState]) -> None:
        self._deps, self._register, self._primaries = deps, register, primaries

    async def page(self, text: str, after: int | None) -> dict[str, Any]:
        """Changes of the recipients of a domain, oldest first, from all that is known or from where the page
        before ended. `end`: no more can be read now; who asks again then waits for a moment. Raises Refused,
        LogError."""
        name = domains.named(text)
        era = domains.known(self._register.book(), name).era
        primary = self._primaries.get(name.encode())
        found: list[Change] = []
        waited, at, end = after is None, BEGIN, False

        def enough(batch: Batch) -> bool:
            nonlocal waited, at, end
            found.extend(_changes(batch, name, era))
            at, end = batch.position, batch.position >= batch.end
            done = len(found) >= CHANGES or (end and (waited or bool(found)))
            waited = waited or end
            return done

        partition = partition_of(name, self._deps.partitions)
        await self._read(partition, BEGIN if after is None else after, enough)
        health = "unknown" if primary is None else primary.health.value
        return {"changes": found, "after": at, "end": end, "primary": health}

    async def learnt(self, name: str) -> tuple[int, PrimaryFacts | None]:
        """How many recipients of `name` are known, and what callouts learnt of its primary. Raises
        Refused, LogError."""
        roll, facts = await self._all(name)
        return roll.known(), facts

    async def _all(self, name: str) -> tuple[Roll, PrimaryFacts | None]:
        roll, era = Roll(), domains.known(self._register.book(), name).era
        facts: PrimaryFacts | None = None

        def enough(batch: Batch) -> bool:
            nonlocal facts
            for each in _changes(batch, name, era):
                roll.fold(each)
            for record in batch.records:
                if record.key == b"@" + name.encode():
                    facts = _facts(record, era)
            return batch.position >= batch.end

        await self._read(partition_of(name, self._deps.partitions), BEGIN, enough)
        return roll, facts

    async def deliverable(self, name: str) -> tuple[list[str], PrimaryFacts | None]:
        """The recipients of `name` that are known to exist, and what callouts learnt of its primary. Raises
        Refused, LogError."""
        roll, facts = await self._all(name)
        return deliverable(roll.rows()), facts

    async def census(self, partition: int) -> dict[str, Few]:
        """Of each domain in a partition the recipients that are known to exist, in one reading of all. Raises
        Unavailable."""
        census = Census({each.domain: each.era for each in self._register.book().domains.values()})

        def enough(batch: Batch) -> bool:
            for record in batch.records:
                with suppress(Undecodable):  # verify's to say
                    census.fold(record)
            return batch.position >= batch.end

        await self._read(partition, BEGIN, enough)
        return census.few()

    async def keys(self, name: str) -> list[str]:
        """The addresses of all recipients of `name` of whom something is known. Raises Refused, LogError."""
        roll, _ = await self._all(name)
        return [row["address"] for row in roll.rows()]

    async def tell(self, text: str, verb: str, addresses: Sequence[str], by: str) -> dict[str, Any]:
        """Tell verify what the operator says of recipients. `after`: where to read on what came of it. Raises
        Refused, LogError."""
        name = domains.named(text)
        domain = domains.known(self._register.book(), name)
        if len(addresses) > SAID:
            raise Malformed(f"a request is for {SAID} addresses at most")
        records = [told(verb, address, name, by, domain.era) for address in addresses]
        if verb == "import" and (domain.suspended or not domain.active_since):
            state = "suspended" if domain.suspended else "pending"
            raise Refused(f"{name} is {state}: its primary is asked about nobody")
        partition = partition_of(name, self._deps.partitions)
        end = (await self._deps.log.bounds(RECIPIENTS.name, partition)).end
        append = self._deps.log.append
        await asyncio.gather(
            *(
                append(CALLOUTS.name, partition, key.encode(), encode(record), within=WITHIN_S)
                for key, record in records
            )
        )
        return {"domain": name, "told": len(records), "after": end}

    async def _read(self, partition: int, start: int, enough: Callable[[Batch], bool]) -> None:
        """Batches of a partition until there are enough. Raises Unavailable."""
        try:
            async with asyncio.timeout(READ_S):
                async with aclosing(self._deps.log.follow(RECIPIENTS.name, {partition: start})) as batches:
                    async for batch in batches:
                        if enough(batch):
                            return
        except TimeoutError as error:
            raise Unavailable("the recipients could not be read in time") from error
        raise Unavailable("the log was closed")


def _changes(batch: Batch, name: str, era: int) -> Iterator[Change]:
    for record in batch.records:
        try:
            each = change(record, name, era)
        except Undecodable:
            continue  # verify's to say
        if each is not None:
            yield each


def _facts(record: Record, era: int) -> PrimaryFacts | None:
    """None: nothing is known any more, or it cannot be read, which is verify's to say."""
    try:
        found = None if record.value is None else decode_recipient(record.value)
    except Undecodable:
        return None
    return found if isinstance(found, PrimaryFacts) and found.era == era else None
