"""verify as it runs: on a real log and a real resolver, from chunks to verdicts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing

from libs import topics
from libs.log.claims import MemberClaim
from libs.log.contract import BEGIN, Claim, Record, Unavailable
from libs.log.sqlite import SqliteLog
from libs.mail.codec import decode_recipient, encode
from libs.mail.knowledge import Callout, RecipientTry
from libs.mail.records import Domain, Installation
from libs.runtime.clock import SystemClock
from libs.runtime.dns import Dns
from services.verify import content
from services.verify.assemble import Abort, Budget, Chunk
from services.verify.authenticate import Authenticator
from services.verify.content import Contents
from services.verify.heavy import Pool
from services.verify.service import _Both
from services.verify.spill import Spill
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.verify import sign
from tests.verify.scene import PARTITIONS, SIGNED, Scene, scene, scene_on, trace


async def test_a_message_gets_its_verdict(tmp_path: Path) -> None:
    """The content is the request: a verdict comes with the mail's id, its field, and who may be told."""
    async with scene(tmp_path) as here:
        await here.start()
        await here.send("id1", SIGNED, p=3)
        verdict = await here.verdict("id1")
        assert verdict.id == "id1"
        assert verdict.results == {"spf": "pass", "dkim": "pass", "dmarc": "none", "arc": "none"}
        assert verdict.may_notify
        assert verdict.fields.startswith(b"Authentication-Results: mx1.backup.example;\r\n\tspf=pass ")


async def test_chunks_become_one_message(tmp_path: Path) -> None:
    """A signature over three chunks is good, and a forged field that crosses a border is named whole."""
    forged = b"Authentication-Results: mx1.backup.example; spf=pass\r\n"
    message = forged + SIGNED
    async with scene(tmp_path) as here:
        await here.start()
        await here.chunk("id1", 0, message[:20])
        await here.send("id2")
        await here.chunk("id1", 1, message[20:500])
        await here.chunk("id1", 2, message[500:], trace(3))
        verdict = await here.verdict("id1")
        assert verdict.results["dkim"] == "pass"
        assert verdict.strip == ((0, len(forged)),)
        assert (await here.verdict("id2")).results["dkim"] == "none"


async def test_a_gap_is_temperror_and_nothing_worse(tmp_path: Path) -> None:
    """Missing, repeated, unreadable chunks: accepted with temperror; SPF, which needs no content, stands."""
    async with scene(tmp_path) as here:
        await here.start()
        await here.chunk("gap", 0, b"a")
        await here.chunk("gap", 2, b"c", trace(3))
        await here.chunk("repeat", 0, b"a")
        await here.chunk("repeat", 0, b"a")
        await here.chunk("repeat", 1, b"b", trace(2))
        await here.log.append(
            "content", 0, b"error", b"a", within=PATIENCE_S, headers=[("trace", encode(trace(1)))]
        )
        for id_ in ("gap", "repeat", "error"):
            verdict = await here.verdict(id_)
            assert verdict.results == {
                "spf": "pass",
                "dkim": "temperror",
                "dmarc": "temperror",
                "arc": "none",
            }, id_
            assert verdict.action == "accept"


async def test_what_deliver_wrote_and_what_was_aborted_is_stepped_over(tmp_path: Path) -> None:
    """Chunks with `by` and aborted sessions get no verdict, and hold no position."""
    async with scene(tmp_path) as here:
        await here.start()
        headers = [("index", b"0"), ("trace", encode(trace(1))), ("by", b"deliver")]
        await here.log.append("content", 0, b"dsn", sign.MESSAGE, within=PATIENCE_S, headers=headers)
        await here.chunk("aborted", 0, b"a")
        await here.log.append("content", 0, b"aborted", b"", within=PATIENCE_S, headers=[("abort", b"1")])
        await here.send("id1")
        await here.verdict("id1")
        assert set(here.verdicts) == {"id1"}
        await here.stop()
        await here.start()
        await here.send("id2")
        await here.verdict("id2")
        assert set(here.verdicts) == {"id1", "id2"}


async def test_slow_dns_blocks_nobody(tmp_path: Path) -> None:
    """A sender whose DNS does not answer gets temperror later; the mail behind it is answered meanwhile."""
    async with scene(tmp_path) as here:
        await here.start(dns_timeout_s=1.0)
        await here.send("slow", sender="bob@slow.example")
        await here.send("quick")
        await here.verdict("quick")
        assert "slow" not in here.verdicts
        assert (await here.verdict("slow")).results["spf"] == "temperror"


async def test_a_large_mail_keeps_nobody_waiting(tmp_path: Path) -> None:
    """While the pool looks at the largest mails that are taken, all of blanks and signed, whoever comes
    behind them on the same partition has his verdict first."""
    large = SIGNED + (b" \t" * 300 + b"a" + b" " * 398 + b"\r\n") * (50 * 2**20 // 1001)
    chunks = pieces(large, 900_000)
    async with scene(tmp_path) as here:
        await here.start()
        for id_ in ("large1", "large2"):
            for number, value in enumerate(chunks[:-1]):
                await here.chunk(id_, number, value)
            await here.chunk(id_, len(chunks) - 1, chunks[-1], trace(len(chunks)))
        await asyncio.gather(*(here.send(f"small{number}", SIGNED) for number in range(50)))
        await asyncio.gather(*(here.verdict(f"small{number}") for number in range(50)))
        assert "large2" not in here.verdicts
        assert (await here.verdict("large2")).results["dkim"] == "fail"


async def test_an_open_assembly_survives_a_restart(tmp_path: Path) -> None:
    """The stored position is the first chunk of the oldest open assembly: its message is whole afterwards."""
    async with scene(tmp_path) as here:
        await here.start()
        await here.chunk("id1", 0, SIGNED[:100])
        await here.send("id2")
        await here.verdict("id2")
        await here.stop()
        await here.start()
        await here.chunk("id1", 1, SIGNED[100:], trace(2))
        assert (await here.verdict("id1")).results["dkim"] == "pass"


async def test_a_verdict_is_given_once(tmp_path: Path) -> None:
    """What has its verdict is below the position: a restart does not evaluate it again."""
    async with scene(tmp_path) as here:
        await here.start()
        for number in range(20):
            await here.send(f"id{number}", p=number % PARTITIONS)
        await until(lambda: len(here.verdicts) == 20)
        await here.stop()
        await here.start()
        await here.send("last")
        await here.verdict("last")
        assert {len(each) for each in here.verdicts.values()} == {1}


async def test_after_a_long_time_down_what_nobody_waits_for_is_stepped_over(tmp_path: Path) -> None:
    """The living do not wait for the verdicts of the dead: most of those are never made."""
    clock = Clock()
    async with scene(tmp_path, clock) as here:
        body = sign.MESSAGE + b"x" * 70 + b"\r\n"
        for base in range(0, 3000, 500):
            await asyncio.gather(*(here.send(f"old{base + n}", body) for n in range(500)))
            clock.advance(100)
        await here.start()
        await here.send("live")
        await here.verdict("live")
        assert len(here.verdicts) < 1000


async def test_a_short_time_down_loses_no_verdict(tmp_path: Path) -> None:
    """A restart of seconds answers what came meanwhile: ingest still waits for it."""
    async with scene(tmp_path) as here:
        await here.start()
        await here.stop()
        await asyncio.gather(*(here.send(f"id{number}") for number in range(600)))
        await here.start()
        await until(lambda: len(here.verdicts) == 600)


async def test_members_share_and_take_over(tmp_path: Path) -> None:
    """Two verifies share the partitions; when one leaves, the other answers for all of them."""
    async with scene(tmp_path) as here:
        await here.start()
        await here.start()
        for number in range(8):
            await here.send(f"both{number}", p=number % PARTITIONS)
        await until(lambda: len(here.verdicts) == 8)
        await here.chunk("open", 0, SIGNED[:100], p=0)
        await here.send("mark", p=0)
        await here.verdict("mark")
        await here.stop()
        await here.chunk("open", 1, SIGNED[100:], trace(2), p=0)
        for number in range(8):
            await here.send(f"one{number}", p=number % PARTITIONS)
        await until(lambda: len(here.verdicts) == 18)
        assert (await here.verdict("open")).results["dkim"] == "pass"


async def test_draining_finishes_what_was_begun(tmp_path: Path) -> None:
    """A message under evaluation when SIGTERM comes still gets its verdict."""
    async with scene(tmp_path) as here:
        await here.start(dns_timeout_s=0.5)
        await here.send("slow", sender="bob@slow.example")
        await until(lambda: ("slow.example", "TXT") in here.zone.questions)
        assert "slow" not in here.verdicts
        await here.stop()
        assert (await here.verdict("slow")).results["spf"] == "temperror"


async def test_progress_is_told_while_it_works(tmp_path: Path) -> None:
    """Liveness: with nothing to do, empty batches of both topics are progress."""
    async with scene(tmp_path) as here:
        life = await here.start()
        told = life._progress_at
        await until(lambda: life._progress_at > told)


async def test_a_question_is_answered_by_the_same_service(tmp_path: Path) -> None:
    """A callout of a primary that cannot be found is answered on `recipients`: tried, and not known."""
    async with scene(tmp_path) as here:
        p = topics.partition_of("office.example", PARTITIONS)
        await here.log.append(
            "domains", 0, topics.INSTALLATION_KEY, encode(Installation("test-1234", PARTITIONS, 1)), within=10
        )
        domain = Domain("office.example", here.clock.wall(), here.clock.wall())
        await here.log.append("domains", p, b"office.example", encode(domain), within=PATIENCE_S)
        await here.start()
        question = Callout("ann@office.example", "mx1.backup.example")
        await here.log.append("callouts", p, b"ann@office.example", encode(question), within=PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            async for batch in here.log.follow("recipients", {p: BEGIN}):
                known = [decode_recipient(record.value) for record in batch.records if record.value]
                if tried := [each for each in known if isinstance(each, RecipientTry)]:
                    break
        assert tried[0].mailbox == "ann@office.example"


class Reading:
    """Contents alone, with a budget of its own."""

    def __init__(self, here: Scene, octets: int, limit: int = 2**30) -> None:
        self.budget, self.spill = Budget(octets), Spill(here.directory, limit)
        self.dns, self.pool = Dns(here.zone.servers, here.clock, 0.5), Pool()
        authenticator = Authenticator(
            self.dns, here.clock, self.pool, authserv_id="mx1.backup.example", hosts=[], within_s=5
        )
        self.contents = Contents(
            here.log, here.clock, here.metrics, authenticator, self.spill, deadline_s=20, budget=self.budget
        )


@asynccontextmanager
async def reading(here: Scene, octets: int, limit: int = 2**30) -> AsyncIterator[Reading]:
    made = Reading(here, octets, limit)
    try:
        async with here.log.own("verify", made.contents):
            task = asyncio.create_task(made.contents.run(lambda: None))
            yield made
        task.cancel()
        await asyncio.wait({task})
    finally:
        await made.dns.close()
        await made.pool.close()
        made.spill.close()


async def test_a_record_that_trips_us_is_stepped_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 8: a bug of ours with one record is logged; its neighbours go on, and it is not met again."""
    sound = content.read

    def tripped(record: Record) -> Chunk | Abort | None:
        if record.key == b"poison":
            raise KeyError("a bug")
        return sound(record)

    monkeypatch.setattr(content, "read", tripped)
    async with scene(tmp_path) as here:
        await here.start()
        with structlog.testing.capture_logs() as logs:
            await here.send("poison")
            await here.send("id1")
            await here.verdict("id1")
        assert [line["event"] for line in logs] == ["a chunk failed"]
        await here.stop()
        await here.start()
        await here.send("id2")
        await here.verdict("id2")
        assert set(here.verdicts) == {"id1", "id2"}


def pieces(content: bytes, size: int) -> Sequence[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


async def test_beyond_the_budget_chunks_go_to_the_file(tmp_path: Path) -> None:
    """Rule 13: memory is bounded; a message that does not fit is verified from the file all the same."""
    message = sign.MESSAGE.replace(b"figures. \r\n", b"figures.\r\n" + b"and so on \r\n" * 3000)
    chunks = pieces(message, 4000)
    async with scene(tmp_path) as here, reading(here, 10_000) as made:
        for number, value in enumerate(chunks[:-1]):
            await here.chunk("id1", number, value)
        await until(lambda: made.budget.used > 0)
        await here.chunk("id1", len(chunks) - 1, chunks[-1], trace(len(chunks)))
        verdict = await here.verdict("id1")
        assert verdict.results == {"spf": "pass", "dkim": "none", "dmarc": "none", "arc": "none"}
        await until(lambda: made.budget.used == 0)
        assert made.spill._live == 0


async def test_without_any_room_a_message_is_temperror(tmp_path: Path) -> None:
    """Memory and file are full: this message is accepted with temperror, the next one is not concerned."""
    async with scene(tmp_path) as here, reading(here, 300, limit=100) as made:
        await here.chunk("large", 0, SIGNED)
        await here.chunk("large", 1, b"x\r\n", trace(2))
        assert (await here.verdict("large")).results["dkim"] == "temperror"
        await here.send("small", b"From: a@b.example\r\n\r\n")
        assert (await here.verdict("small")).results["dkim"] == "none"
        await until(lambda: made.budget.used == 0)


async def test_a_lost_claim_gives_everything_back(tmp_path: Path) -> None:
    """When the partition goes, its chunks are let go and its evaluations end without a verdict."""
    async with scene(tmp_path) as here:
        async with reading(here, 10_000) as made:
            await here.chunk("open", 0, b"a" * 1000)
            await here.send("slow", sender="bob@slow.example")
            await until(lambda: made.budget.used > 1000)
        await until(lambda: made.budget.used == 0)
        assert made.contents._under_way == 0
        assert here.verdicts == {}


async def test_reading_waits_when_too_much_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of senders with slow DNS is read no faster than it is answered, and all of it is answered."""
    monkeypatch.setattr(content, "_AT_ONCE", 5)
    async with scene(tmp_path) as here, reading(here, 10**6) as made:
        here.zone.set("".join(f"s{number}.example !timeout\n" for number in range(30)))
        most = 0
        for number in range(30):
            await here.send(f"id{number}", sender=f"bob@s{number}.example")
            most = max(most, made.contents._under_way)
        assert most == 5
        assert len(here.verdicts) < 30
        await until(lambda: len(here.verdicts) == 30)


class Read:
    """An Owner that reads nothing."""

    def gained(self, claim: Claim) -> None: ...
    def lost(self, claim: Claim) -> None: ...


def test_progress_needs_both_readers() -> None:
    """A reader that is stuck is not covered up by the other; with nothing owned there is nothing to read."""
    told: list[int] = []
    both = _Both(Read(), Read(), lambda: told.append(1))
    claim = MemberClaim("verify", 0)
    both.gained(claim)
    both.read()
    both.read()
    assert told == []
    both.asked()
    assert len(told) == 1
    both.asked()
    assert len(told) == 1
    both.lost(claim)
    both.read()
    assert len(told) == 2


async def test_a_service_that_cannot_go_on_says_so(tmp_path: Path) -> None:
    """When its log is gone for good the coroutine ends with the error, and the process with it."""
    clock = SystemClock()
    log = SqliteLog(tmp_path / "log", partitions=PARTITIONS, clock=clock)
    await log.start()
    async with scene_on(log, tmp_path, clock) as here:
        await here.start()
        await log.close()
        with pytest.raises(Unavailable):
            await here.stop()
