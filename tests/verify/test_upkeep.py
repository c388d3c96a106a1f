"""What happens to the cache with nobody asking: how fast it is confirmed again, what it has no room for."""

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from libs import topics
from libs.log.contract import Log
from libs.log.sqlite import SqliteLog
from libs.mail.codec import encode
from libs.mail.knowledge import (
    Observed,
    RecipientRecord,
    RecipientStatus,
    RecipientTry,
    Status,
)
from libs.mail.records import Domain
from libs.runtime.clock import SystemClock
from libs.smtp.client import CALLOUT
from services.verify.calls import GENTLE
from services.verify.index import NEGATIVES, Index
from services.verify.learning import LIFETIMES, Lifetimes
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.verify.house import PARTITIONS, House, asked, at, house

DOMAIN = "office.example"
PARTITION = topics.partition_of(DOMAIN, PARTITIONS)
DENIED = "550 5.1.1 no such user"
QUICK = GENTLE._replace(per_s=1000.0, burst=1000.0)
WEEK_S = 7 * 86_400.0
BATCH = 1000


class Read(Clock):
    """Counts how often it is read: so it can be told that others had their turn."""

    reads = 0

    def mono(self) -> float:
        self.reads += 1
        return super().mono()

    async def seen(self) -> None:
        before = self.reads
        await until(lambda: self.reads > before + 20)


def names(number: int) -> list[str]:
    return [f"user{each}@{DOMAIN}" for each in range(number)]


# --- the pace of refreshing ---


async def test_one_a_second_is_asked_about_again(tmp_path: Path) -> None:
    """A week after 12 recipients were confirmed at once, and no mail came: all are asked about again, no more
    than one in each second that passes."""
    clock, everybody = Read(), names(12)
    async with at() as primary, house(tmp_path, primary, clock=clock, gently=QUICK) as it:
        await it.add()
        await asyncio.gather(*(it.ask(name) for name in everybody))
        before = len(asked(primary))
        await it.advance(WEEK_S)
        began = clock.mono()
        while (count := len(asked(primary)) - before) < len(everybody):
            assert count <= 1 + clock.mono() - began
            clock.advance(0.25)
            await clock.seen()
        assert sorted(asked(primary)[before:]) == sorted(everybody)
        for name in everybody:
            status = it.known.recipient(name.encode(), name).status
            assert status is not None
            assert status.confirmed >= clock.wall() - 60


async def test_only_one_at_a_time(tmp_path: Path) -> None:
    """While a primary thinks about one recipient the next ones wait for their turn: they do not share its
    time-out, nor do they pile up in memory."""
    clock, everybody = Read(), names(3)
    quickly = CALLOUT._replace(verify_s=1.0)
    async with (
        at() as primary,
        house(tmp_path, primary, clock=clock, gently=QUICK, timeouts=quickly) as it,
    ):
        await it.add()
        for name in everybody:
            await it.ask(name)
        before = len(asked(primary))
        for name in everybody:
            primary.say("RCPT", "!silent", to=name)
        await it.advance(WEEK_S)
        await primary.until(lambda: len(asked(primary)) > before)
        for _ in range(5):
            clock.advance(2)
            await clock.seen()
        await until(lambda: any(it.tried(name) for name in everybody))
        assert sum(it.tried(name) is not None for name in everybody) == 1


async def test_a_shared_address_is_asked_gently(tmp_path: Path) -> None:
    """Eight domains on one server: one session at a time, and all of them together at its pace."""
    domains = [f"d{number}.example" for number in range(8)]
    zone = "mx.office.example A 127.0.0.2\nmx1.backup.example A 127.0.0.9\n" + "\n".join(
        f"{domain} MX 10 mx.office.example\n{domain} MX 20 mx1.backup.example" for domain in domains
    )
    pace = GENTLE._replace(per_s=10.0)
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def note(_: str) -> None:
        times.append(loop.time())

    async with (
        at() as primary,
        SqliteLog(tmp_path / "log", partitions=PARTITIONS, clock=SystemClock()) as log,
    ):
        async with house(tmp_path, primary, zone=zone, log=log) as it:
            for domain in domains:
                await it.add(domain)
            await asyncio.gather(*(it.ask(f"ann@{domain}") for domain in domains))
        await primary.until(lambda: not primary.open_visits)
        primary.calls_back = note
        before, began, primary.most_at_once = len(asked(primary)), loop.time(), 0
        at_once = Lifetimes(deliverable_s=0.0)
        async with house(tmp_path, primary, zone=zone, log=log, lifetimes=at_once, gently=pace):
            await primary.until(lambda: len(asked(primary)) == before + len(domains))
        assert primary.most_at_once == 1
        for number, time in enumerate(times, 1):
            assert number <= 1 + pace.per_s * (time - began)


# --- a pulled brake ---


async def braked(it: House) -> None:
    await until(lambda: (facts := it.facts()) is not None and facts.braked)


async def released(it: House) -> None:
    await until(lambda: (facts := it.facts()) is not None and not facts.braked)


async def test_a_brake_ends_though_nobody_writes_to_who_is_known(tmp_path: Path) -> None:
    """A catch-all primary learns its users: deliveries to eight mailboxes that it took are denied, the brake
    is pulled, and nobody would be asked about any more. One who is known and not in doubt is asked about a
    quarter of an hour later, which ends it; then the eight become unknown, and new ones are asked about."""
    clock, nobodies = Read(), [f"nobody{number}@{DOMAIN}" for number in range(8)]
    real = f"ann@{DOMAIN}"
    async with (
        at(known={real, *nobodies}) as primary,
        house(tmp_path, primary, clock=clock, gently=QUICK) as it,
    ):
        await it.add()
        for name in (real, *nobodies):
            await it.ask(name)
        assert primary.known is not None
        primary.known -= set(nobodies)
        for name in nobodies:
            await it.put("callouts", name, Observed(name, "RCPT", DENIED))
        await until(lambda: all(it.tried(name) for name in nobodies))
        await braked(it)
        await clock.seen()
        before = len(asked(primary))
        await it.advance(LIFETIMES.witness_s - 1)
        await clock.seen()
        await braked(it)
        assert real not in asked(primary)[before:]
        await it.advance(1)
        await released(it)
        for name in nobodies:
            await it.ask(name)  # the second witness, with a control
        assert [it.status(name) for name in nobodies] == [Status.UNDELIVERABLE] * 8
        primary.known.add(f"new@{DOMAIN}")
        await it.ask(f"new@{DOMAIN}")
        assert it.status(f"new@{DOMAIN}") is Status.DELIVERABLE


async def test_a_brake_stays_while_everybody_is_denied(tmp_path: Path) -> None:
    """Whoever is denied then ends nothing; after a restart it is gone on with."""
    clock, everybody = Read(), names(5)
    async with (
        at(known=set(everybody)) as primary,
        SqliteLog(tmp_path / "log", partitions=PARTITIONS, clock=clock) as log,
    ):
        async with house(tmp_path, primary, clock=clock, log=log, gently=QUICK) as it:
            await it.add()
            for name in everybody:
                await it.ask(name)
            primary.known = set()
            for name in everybody[:3]:
                await it.put("callouts", name, Observed(name, "RCPT", DENIED))
            await braked(it)
            await clock.seen()
            await it.advance(LIFETIMES.witness_s)
            await until(lambda: any(it.tried(name) for name in everybody[3:]))
            assert (await until(it.facts)).braked
        primary.known = set(everybody[3:])
        async with house(tmp_path, primary, clock=clock, log=log, gently=QUICK) as it:
            await clock.seen()
            await it.advance(LIFETIMES.witness_s)
            await released(it)


# --- what there is no room for ---


def no(name: str, at_s: float = 1.0) -> RecipientStatus:
    return RecipientStatus(name, Status.UNDELIVERABLE, at_s, at_s, reply=DENIED)


def yes(name: str, at_s: float = 1.0) -> RecipientStatus:
    return RecipientStatus(name, Status.DELIVERABLE, at_s, at_s)


def test_the_oldest_negatives_go_first() -> None:
    """The order is that of writing: a no that was said again is young. Who is deliverable is never too
    many."""
    index = Index(most=2)
    for name in ("a@x", "b@x"):
        index.folded(name.encode(), no(name))
    for number in range(10):
        index.folded(f"real{number}@x".encode(), yes(f"real{number}@x"))
    assert index.crowded() == []
    index.folded(b"a@x", no("a@x", 2.0))
    index.folded(b"c@x", no("c@x"))
    assert index.crowded() == [b"x"]
    assert index.surplus(b"x") == [b"b@x"]
    index.folded(b"b@x", None)
    assert index.surplus(b"x") == []
    assert index.crowded() == []


KEYS = [f"{name}@x" for name in "abcdefgh"]
RECORDS = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from(["yes", "no", "try", "doubt", "import", "forget"]),
    ),
    max_size=60,
)


@given(RECORDS)
def test_no_attack_pushes_out_what_is_real(records: list[tuple[str, str]]) -> None:
    """Whatever is written in whatever order: deliverable recipients, doubts and imports are never too many,
    and what is left of the others is no more than there may be, the youngest."""
    index = Index(most=2)
    now: dict[bytes, RecipientRecord] = {}
    for name, what in records:
        key = name.encode() if what in ("yes", "no", "forget") else b"try:" + name.encode()
        found: RecipientRecord | None = {
            "yes": yes(name),
            "no": no(name),
            "try": RecipientTry(name, 1.0, "unreachable"),
            "doubt": RecipientTry(name, 1.0, "contradicted", 1.0),
            "import": RecipientTry(name, 0.0, "", imported=1.0),
        }.get(what)
        index.folded(key, found)
        now.pop(key, None)
        if found is not None:
            now[key] = found
    surplus = index.surplus(b"x")
    negatives = [key for key, found in now.items() if found == no(key.decode())]
    tries = [key for key, found in now.items() if isinstance(found, RecipientTry) and is_vain(found)]
    assert surplus == negatives[: len(negatives) - 2] * (len(negatives) > 2) + tries[: len(tries) - 2] * (
        len(tries) > 2
    )
    for key in surplus:
        index.folded(key, None)
    assert index.surplus(b"x") == []


def is_vain(tried: RecipientTry) -> bool:
    return not tried.against_since and not tried.imported


async def written(log: Log, records: list[RecipientStatus]) -> None:
    for start in range(0, len(records), BATCH):
        await asyncio.gather(
            *(
                log.append("recipients", PARTITION, each.mailbox.encode(), encode(each), within=30)
                for each in records[start : start + BATCH]
            )
        )


def negatives(it: House) -> int:
    keys = it.known.recipients.values
    return sum(it.status(key.decode()) is Status.UNDELIVERABLE for key in keys if key[:1] != b"@")


async def test_a_dictionary_attack_through_the_service(tmp_path: Path) -> None:
    """10,000 negatives of a domain are there, and real addresses that are older than all of them. 50 more
    come: as many of the oldest go, with a tombstone in the log, and no real address."""
    real, guesses = names(40), [f"guess{number}@{DOMAIN}" for number in range(NEGATIVES)]
    fresh = [f"late{number}@{DOMAIN}" for number in range(50)]
    log_there = SqliteLog(tmp_path / "log", partitions=PARTITIONS, clock=SystemClock())
    async with at() as primary, log_there as log:
        domain = encode(Domain(DOMAIN, 1.0, active_since=1.0))
        await log.append("domains", PARTITION, DOMAIN.encode(), domain, within=PATIENCE_S)
        now = 4_000_000_000.0  # no clock in this test comes to where these are over
        await written(log, [yes(name, now) for name in real])
        await written(log, [no(name, now) for name in guesses])
        async with house(tmp_path, primary, log=log, lifetimes=LIFETIMES) as it:
            await until(lambda: it.known.settings(DOMAIN))
            assert negatives(it) == NEGATIVES
            await asyncio.gather(
                *(it.put("callouts", name, Observed(name, "RCPT", DENIED)) for name in fresh)
            )
            await until(lambda: it.status(guesses[49]) is None)
            await until(lambda: negatives(it) == NEGATIVES)
            assert all(it.status(name) is Status.UNDELIVERABLE for name in (*guesses[50:], *fresh))
            assert all(it.status(name) is None for name in guesses[:50])
            assert all(it.status(name) is Status.DELIVERABLE for name in real)
        async with house(tmp_path, primary, log=log) as again:
            assert negatives(again) == NEGATIVES
            assert all(again.status(name) is Status.DELIVERABLE for name in real)
            assert asked(primary) == []
