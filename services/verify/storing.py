"""What callouts write: records of `recipients` under a claim, a flush on `requests`, events."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence

import structlog
from msgspec.structs import replace

from libs import topics
from libs.log.contract import Claim, LogError, NotOwner
from libs.mail.codec import encode
from libs.mail.event import Event, EventType
from libs.mail.hints import for_owner
from libs.mail.knowledge import PrimaryFacts, RecipientRecord, RecipientStatus, RecipientTry
from libs.mail.records import Flush
from libs.runtime.deps import Deps
from services.verify.known import Known
from services.verify.learning import says_nothing
from services.verify.orders import Keyed

STORE_S = 15.0  # an answer that cannot be stored within this is lost; the next question brings it again

log = structlog.get_logger()


class Storing:
    """Nothing here waits: each write is a task of its own. finish() awaits them all."""

    def __init__(self, deps: Deps, known: Known) -> None:
        self._deps, self._known = deps, known
        self._writes: set[asyncio.Task[None]] = set()

    def store(
        self,
        claim: Claim,
        key: bytes,
        domain: str,
        records: Sequence[RecipientRecord],
        then: Callable[[], object] = lambda: None,
    ) -> None:
        """Append `records` in order, a RecipientTry under `try:` + `key`; then call `then`, stored or not.

        A try that says nothing beside the status goes. They are known at once: a question that comes before
        the replica has them finds its answer.
        """
        self.put(claim, domain, [_keyed(key, record) for record in records], then)

    def put(
        self,
        claim: Claim,
        domain: str,
        keyed: Sequence[Keyed],
        then: Callable[[], object] = lambda: None,
        era: int | None = None,
    ) -> None:
        """As store(), with the key of each record in `recipients`; None: its tombstone. `era`: its era;
        None: that of the domain now."""
        era = self._known.era(domain) if era is None else era
        keyed = [(key, _of_era(record, era)) for key, record in keyed]
        for name, record in keyed:
            self._known.remember(name, record)
        self._spawn(self._store(claim, domain, keyed, then))

    def released(self, domain: str, request_id: str, by: str, *, braked: bool) -> None:
        text = f"callout brake released by {by}" if braked else "the callout brake was not pulled"
        self._deps.events.emit(Event(EventType.REQUEST, domain=domain, request_id=request_id, text=text))

    def flush(self, domain: str) -> None:
        """Ask deliver to try the domain's mail at once: its primary has just answered."""
        request = Flush(secrets.token_hex(8), domain, "callout")
        self._spawn(self._append("requests", domain, domain.encode(), request, None))

    def say_primary(self, facts: PrimaryFacts) -> None:
        text = f"callouts {facts.callouts}{', callout brake pulled' if facts.braked else ''}"
        advice = for_owner(facts, None, self._deps.config.us, facts.since)
        text += "".join(f": {each}" for each in (facts.reply, advice) if each)
        self._deps.events.emit(Event(EventType.PRIMARY, domain=facts.domain, text=text))

    def say_recipient(self, domain: str, old: RecipientStatus | None, new: RecipientStatus) -> None:
        """An event where the status changed."""
        if old is not None and old.status is new.status:
            return
        before = old.status if old is not None else "unknown"
        self.say(domain, new.mailbox, f"{before} -> {new.status}: {new.reply}")

    def say(self, domain: str, mailbox: str, text: str) -> None:
        """An event about a recipient."""
        self._deps.events.emit(Event(EventType.RECIPIENT, domain=domain, recipient=mailbox, text=text))

    async def finish(self) -> None:
        while self._writes:
            await asyncio.wait(self._writes)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _store(
        self,
        claim: Claim,
        domain: str,
        keyed: Sequence[Keyed],
        then: Callable[[], object],
    ) -> None:
        try:
            for key, record in keyed:
                await self._append("recipients", domain, key, record, claim)
        finally:
            then()

    async def _append(
        self, topic: str, domain: str, key: bytes, record: RecipientRecord | Flush | None, claim: Claim | None
    ) -> None:
        value = None if record is None else encode(record)
        partition = topics.partition_of(domain, self._deps.partitions)
        try:
            stored = await self._deps.log.append(topic, partition, key, value, within=STORE_S, claim=claim)
            self._deps.events.clocks.heard(stored.time)
        except NotOwner:
            return  # the new owner asks for itself
        except LogError as error:
            log.warning("an answer could not be stored", topic=topic, domain=domain, error=str(error))


def _of_era(record: RecipientRecord | None, era: int | None) -> RecipientRecord | None:
    return record if record is None or era is None else replace(record, era=era)


def _keyed(key: bytes, record: RecipientRecord) -> Keyed:
    if not isinstance(record, RecipientTry):
        return key, record
    return b"try:" + key, None if says_nothing(record) else record
