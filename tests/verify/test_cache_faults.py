"""The cache over both logs, with a real primary: a primary that lost its users, a former owner that writes
late, a restart, a primary that accepts everything, a released brake."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from libs import topics
from libs.log.contract import BEGIN, Log
from libs.log.sqlite import SqliteLog
from libs.mail.address import mailbox
from libs.mail.codec import decode_recipient, encode
from libs.mail.event import EventType, decode_events
from libs.mail.knowledge import Callouts as State
from libs.mail.knowledge import Observed, RecipientStatus, RecipientTry, Status
from libs.mail.records import Domain, Unbrake
from libs.mail.reply import Reply
from libs.mail.settings import complete
from services.ingest import policy
from services.ingest.facts import Accept, Envelope, Facts, OurNames
from tests.helpers.clock import Clock
from tests.helpers.kafka import broker, log_on  # noqa: F401 a fixture
from tests.helpers.patience import PATIENCE_S, until
from tests.verify.house import ANN, BOB, EVE, PARTITIONS, House, asked, at, house

DOMAIN = "office.example"
PARTITION = topics.partition_of(DOMAIN, PARTITIONS)
DENIED = "550 5.1.1 no such user"


@asynccontextmanager
async def log_of(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, clock: Clock
) -> AsyncIterator[Log]:
    """`clock` is the embedded log's, too."""
    if kind == "kafka":
        async with log_on(request.getfixturevalue("broker"), partitions=PARTITIONS) as log:
            yield log
    else:
        async with SqliteLog(tmp_path / "log", partitions=PARTITIONS, clock=clock) as log:
            yield log


both = pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))]
)


def answer(it: House, name: str) -> Reply | Accept | object:
    """What ingest says at RCPT, out of a fresh table."""
    known, clock = it.known.recipient(name.encode(), name), it.deps.clock
    settings = complete(it.deps.config.defaults.settings(), Domain(DOMAIN, 1.0, active_since=1.0))
    facts = Facts(
        OurNames("mx1.backup.example", {}, mailbox("ops@ops.example")),
        whole=True,
        settings=settings,
        fresh=True,
        status=known.status,
        tried=known.tried,
        learnt=it.facts(),
    )
    return policy.at_rcpt(mailbox(name), facts, Envelope("eve@sender.example"), clock.wall())


async def newest(log: Log, key: str) -> bytes | None:
    """What `recipients` ends with under a key."""
    found = None
    async for batch in log.follow("recipients", {PARTITION: BEGIN}):
        for record in batch.records:
            if record.key == key.encode():
                found = record.value
        if batch.position >= batch.end:
            return found
    raise AssertionError("the log was closed")


@both
async def test_a_primary_that_denies_everybody(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """550 5.1.1 to everybody for 30 min, in callouts and deliveries: no known recipient hears a 5xx, and no
    status changes; once one is confirmed all goes on."""
    clock = Clock()
    names = [f"user{number}@{DOMAIN}" for number in range(5)]
    own = clock if kind == "sqlite" else None  # Kafka's clock does not jump with ours
    async with (
        at(known=set(names)) as primary,
        log_of(kind, tmp_path, request, clock) as log,
        house(tmp_path, primary, clock=own, log=log) as it,
    ):
        await it.add()
        for name in names:
            await it.ask(name)
        everybody, primary.known = primary.known, set()
        before = [it.known.recipient(name.encode(), name).status for name in names]
        for minute in range(30):
            for name in names:
                await it.put("callouts", name, Observed(name, "RCPT", DENIED))
            await it.ask(f"new{minute}@{DOMAIN}")
            if own is not None:
                await it.advance(60)
            for name in names:
                said = answer(it, name)
                assert isinstance(said, Accept) or (isinstance(said, Reply) and said.code == 451), said
        assert [it.known.recipient(name.encode(), name).status for name in names] == before
        assert (await until(it.facts)).braked
        assert all(isinstance(answer(it, name), Accept) for name in names)
        primary.known = everybody
        await it.put("callouts", names[0], Observed(names[0], "RCPT", "250 ok"))
        await until(lambda: (facts := it.facts()) is not None and not facts.braked)


@both
async def test_a_former_owner_writes_late(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What it had on its way when it lost its claim does not count, and the owner has the last word."""
    clock = Clock()
    async with (
        at(known={ANN}) as primary,
        log_of(kind, tmp_path, request, clock) as log,
        house(tmp_path, primary, clock=clock if kind == "sqlite" else None, log=log) as it,
    ):
        await it.add()
        await it.ask(ANN)
        now = it.deps.clock.wall()
        late = encode(RecipientStatus(ANN, Status.UNDELIVERABLE, now, now, reply=DENIED))
        await log.append("recipients", PARTITION, ANN.encode(), late, within=PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            while (last := await newest(log, ANN)) is None or last == late:  # noqa: ASYNC110 a bounded poll
                await asyncio.sleep(0.02)
        record = decode_recipient(last)
        assert isinstance(record, RecipientStatus)
        assert record.status is it.status(ANN) is Status.DELIVERABLE


@both
async def test_a_restart(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What is known is known again, without a question; a doubt is asked about again though nobody comes."""
    clock = Clock()
    own = clock if kind == "sqlite" else None
    async with at(known={ANN, BOB}) as primary, log_of(kind, tmp_path, request, clock) as log:
        async with house(tmp_path, primary, clock=own, log=log) as it:
            await it.add()
            for name in (ANN, BOB, EVE):
                await it.ask(name)
            await it.put("callouts", BOB, Observed(BOB, "RCPT", DENIED))
            await until(lambda: (found := it.tried(BOB)) is not None and found.against_since)
        before = len(asked(primary))
        async with house(tmp_path, primary, clock=own, log=log) as it:
            assert [it.status(name) for name in (ANN, BOB)] == [Status.DELIVERABLE] * 2
            assert it.status(EVE) is Status.UNDELIVERABLE
            await it.ask(ANN)
            assert len(asked(primary)) == before
            if own is not None:
                await it.advance(901)
                await until(lambda: it.tried(BOB) is None)
                assert asked(primary)[before:] == [BOB]


@both
async def test_a_primary_that_accepts_everything(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It is found out with the first callout: its yes says nothing, and nobody is asked about any more. Asked
    again a day later it denies nobody's mailbox, and is asked as before."""
    clock = Clock()
    own = clock if kind == "sqlite" else None
    async with (
        at() as primary,
        log_of(kind, tmp_path, request, clock) as log,
        house(tmp_path, primary, clock=own, log=log) as it,
    ):
        primary.say("RCPT", "250 2.1.5 whoever that is")
        await it.add()
        first = await it.ask(ANN)
        assert isinstance(first, RecipientTry)
        assert first.last_outcome == "up"
        facts = await until(it.facts)
        assert facts.callouts is State.CATCH_ALL
        second = await it.ask(BOB)
        assert isinstance(second, RecipientTry)
        assert (second.last_outcome, asked(primary)) == ("catch_all", [ANN])
        assert it.status(ANN) is it.status(BOB) is None
        if own is not None:
            primary.say("RCPT", "")
            await it.advance(86_401)
            await until(lambda: (now := it.facts()) is not None and now.callouts is State.OPEN)
            await it.ask(EVE)
            assert it.status(EVE) is Status.DELIVERABLE


@both
async def test_a_released_brake(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """`release` ends it; who asked sees an event with the id of the request."""
    clock = Clock()
    names = [f"user{number}@{DOMAIN}" for number in range(3)]
    async with (
        at(known=set(names)) as primary,
        log_of(kind, tmp_path, request, clock) as log,
        house(tmp_path, primary, clock=clock if kind == "sqlite" else None, log=log) as it,
    ):
        await it.add()
        for name in names:
            await it.ask(name)
        for name in names:
            await it.put("callouts", name, Observed(name, "RCPT", DENIED))
        await until(lambda: (facts := it.facts()) is not None and facts.braked)
        gauge = it.deps.metrics.registry.get_sample_value
        await until(lambda: gauge("backupmx_callout_brake", {"domain": DOMAIN}) == 1)
        release = encode(Unbrake("r-1", DOMAIN, "root"))
        await log.append("requests", PARTITION, DOMAIN.encode(), release, within=PATIENCE_S)
        await until(lambda: (facts := it.facts()) is not None and not facts.braked)
        await until(lambda: gauge("backupmx_callout_brake", {"domain": DOMAIN}) == 0)
        async for batch in log.follow("events", {PARTITION: BEGIN}):
            events = [each for record in batch.records for each in decode_events(record.value or b"")]
            if any(each.type is EventType.REQUEST and each.request_id == "r-1" for each in events):
                break
