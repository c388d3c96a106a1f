"""The conformance suite of the log contract: one class of cases, run over every log.

A log's test file derives `class TestX(Contract)` and supplies one fixture, `logs`, an object as described by
`Logs`. Topics may be shared by all cases of a module: no case expects them to be empty. Cases leave no member
of a group behind.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import pairwise
from random import Random
from typing import Protocol
from uuid import uuid4

import pytest

from libs.log.contract import (
    BEGIN,
    END,
    Ambiguous,
    Batch,
    Claim,
    Gone,
    Log,
    LogError,
    Misconfigured,
    NotOwner,
    NotStored,
    Record,
    Stored,
    Superseded,
    Unavailable,
)
from tests.helpers.patience import PATIENCE_S, until

WITHIN = PATIENCE_S


class Logs(Protocol):
    """One log under test.

    `partitions`: N, at least 4. `content`: a topic that is kept until truncated; `compacted`: one that is
    compacted. `member()`: an open Log, as one more process would have it (a log that only one process can
    open gives the same one again); the fixture closes it. `compact(partition)` returns when every record of
    `compacted` in it that was superseded before the call is gone; it may append records with keys that begin
    with b"~".
    """

    partitions: int
    content: str
    compacted: str

    async def member(self) -> Log: ...
    async def compact(self, partition: int) -> None: ...


async def put(
    log: Log,
    topic: str,
    partition: int,
    key: bytes,
    value: bytes | None = b"v",
    headers: Sequence[tuple[str, bytes]] = (),
) -> Stored:
    return await log.append(topic, partition, key, value, within=WITHIN, headers=headers)


async def end_of(log: Log, topic: str, partition: int) -> int:
    return (await log.bounds(topic, partition)).end


async def read_to_end(log: Log, topic: str, partition: int, start: int = BEGIN) -> list[Record]:
    """Everything from `start` to the end as it is now."""
    end = await end_of(log, topic, partition)
    found: list[Record] = []
    async with asyncio.timeout(WITHIN), aclosing(log.follow(topic, {partition: start})) as following:
        async for batch in following:
            found += batch.records
            if batch.position >= max(end, batch.end):
                return found
    raise AssertionError("the follower ended")


def fresh_key() -> bytes:
    return uuid4().hex.encode()


class Ledger:
    """All claims of one group, over all its members: who holds which number now, and whether two ever did."""

    def __init__(self) -> None:
        self.group = f"group-{uuid4().hex}"
        self.newest: dict[int, Claim] = {}
        self.split: list[int] = []
        self.diary: list[tuple[str, str, int]] = []

    def covered(self, partitions: int) -> bool:
        return len(self.newest) == partitions and all(claim.held() for claim in self.newest.values())


class Keeper:
    """An Owner that writes into the ledger."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name, self.ledger = name, ledger
        self.claims: dict[int, Claim] = {}

    def gained(self, claim: Claim) -> None:
        assert claim.held()
        before = self.ledger.newest.get(claim.partition)
        if before is not None and before.held():
            self.ledger.split.append(claim.partition)
        self.ledger.newest[claim.partition] = self.claims[claim.partition] = claim
        self.ledger.diary.append(("gained", self.name, claim.partition))

    def lost(self, claim: Claim) -> None:
        assert not claim.held()
        assert self.claims.pop(claim.partition) is claim
        self.ledger.diary.append(("lost", self.name, claim.partition))


@asynccontextmanager
async def owning(log: Log, partitions: int) -> AsyncIterator[Keeper]:
    """A member of a group of its own that owns every number."""
    ledger = Ledger()
    keeper = Keeper("only", ledger)
    async with log.own(ledger.group, keeper):
        await until(lambda: ledger.covered(partitions))
        yield keeper
    assert not keeper.claims


class Contract:
    """The cases. Each test's first line is its rule."""

    # --- append, follow, read ---

    async def test_a_record_comes_back_as_it_was_sent(self, logs: Logs) -> None:
        """Key, value and headers are kept octet by octet, in `follow` and in `read`; an empty value is no
        tombstone."""
        log = await logs.member()
        start = await end_of(log, logs.content, 1)
        sent = [
            (fresh_key(), b"plain", (("index", b"0"), ("trace", bytes(range(256))))),
            (fresh_key(), bytes(range(256)) * 40, ()),
            (fresh_key(), b"", (("empty", b""), ("twice", b"1"), ("twice", b"2"))),
        ]
        stored = [await put(log, logs.content, 1, *each) for each in sent]
        followed = await read_to_end(log, logs.content, 1, start)
        assert [record.offset for record in followed] == [each.offset for each in stored]
        for record, (key, value, headers), acknowledged in zip(followed, sent, stored, strict=True):
            assert (record.topic, record.partition) == (logs.content, 1)
            assert (record.key, record.value, tuple(record.headers)) == (key, value, headers)
            assert record.time == pytest.approx(acknowledged.time, abs=0.002)
            again = await log.read(logs.content, 1, acknowledged.offset, key)
            assert (again.value, tuple(again.headers), again.time) == (value, headers, record.time)

    async def test_a_tombstone_comes_back_as_none(self, logs: Logs) -> None:
        """A value of None is a tombstone, in `follow` and in `read`."""
        log = await logs.member()
        start, key = await end_of(log, logs.compacted, 0), fresh_key()
        await put(log, logs.compacted, 0, key, b"v")
        stored = await put(log, logs.compacted, 0, key, None, (("why", b"done"),))
        followed = [each for each in await read_to_end(log, logs.compacted, 0, start) if each.key == key]
        assert followed[-1].value is None
        record = await log.read(logs.compacted, 0, stored.offset, key)
        assert record.value is None
        assert record.header("why") == b"done"

    async def test_a_megabyte_comes_back(self, logs: Logs) -> None:
        """A chunk of 960 kB, the largest that ingest writes, is one record."""
        log, key, value = await logs.member(), fresh_key(), Random(1).randbytes(960_000)
        stored = await put(log, logs.content, 2, key, value)
        assert (await log.read(logs.content, 2, stored.offset, key)).value == value
        assert (await read_to_end(log, logs.content, 2, stored.offset))[0].value == value

    async def test_too_large_a_record_is_not_stored(self, logs: Logs) -> None:
        """A record over 1 MiB is NotStored, certainly, and what comes after it is stored."""
        log, key = await logs.member(), fresh_key()
        start = await end_of(log, logs.content, 2)
        with pytest.raises(NotStored):
            await put(log, logs.content, 2, key, bytes(2**20 + 1))
        await put(log, logs.content, 2, key, b"small")
        assert [each.value for each in await read_to_end(log, logs.content, 2, start)] == [b"small"]

    async def test_what_one_member_appends_the_others_read(self, logs: Logs) -> None:
        """A follower that waits at the end gets what any member appends."""
        writer, reader = await logs.member(), await logs.member()
        key = fresh_key()
        async with asyncio.timeout(WITHIN), aclosing(reader.follow(logs.content, {0: END})) as following:
            first = await anext(following)
            assert not first.records
            stored = await put(writer, logs.content, 0, key, b"news")
            while not (batch := await anext(following)).records:
                pass
        assert [(each.offset, each.key, each.value) for each in batch.records] == [
            (stored.offset, key, b"news")
        ]
        assert batch.position == stored.offset + 1

    async def test_follow_starts_where_it_is_told(self, logs: Logs) -> None:
        """From BEGIN everything, from an offset that record and all after it, from END nothing old."""
        log = await logs.member()
        keys = [fresh_key() for _ in range(5)]
        stored = [await put(log, logs.content, 3, key) for key in keys]
        everything = [each.key for each in await read_to_end(log, logs.content, 3, BEGIN)]
        assert everything[-5:] == keys
        middle = await read_to_end(log, logs.content, 3, stored[2].offset)
        assert [each.key for each in middle] == keys[2:]
        assert await read_to_end(log, logs.content, 3, END) == []

    async def test_follow_covers_many_partitions(self, logs: Logs) -> None:
        """Each partition has batches of its own, each record in its partition's order."""
        log = await logs.member()
        numbers = range(logs.partitions)
        starts = {number: await end_of(log, logs.content, number) for number in numbers}
        sent: dict[int, list[bytes]] = {number: [] for number in numbers}
        for turn in range(30):
            number = turn * 7 % logs.partitions
            sent[number].append(fresh_key())
            await put(log, logs.content, number, sent[number][-1])
        got: dict[int, list[bytes]] = {number: [] for number in numbers}
        async with asyncio.timeout(WITHIN), aclosing(log.follow(logs.content, starts)) as following:
            async for batch in following:
                got[batch.partition] += [each.key for each in batch.records]
                assert all(each.partition == batch.partition for each in batch.records)
                if sum(map(len, got.values())) >= 30:
                    break
        assert got == sent

    async def test_an_empty_batch_a_second_proves_freshness(self, logs: Logs) -> None:
        """A follower at the end hears of each partition at least once a second, silent or busy."""
        log = await logs.member()
        heard: dict[int, list[float]] = {0: [], 1: []}
        ended = asyncio.Event()

        async def write() -> None:
            while not ended.is_set():
                await put(log, logs.content, 1, fresh_key())
                await asyncio.sleep(0.01)

        async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as group:
            group.create_task(write())
            began = time.monotonic()
            async with aclosing(log.follow(logs.content, {0: END, 1: END})) as following:
                async for batch in following:
                    heard[batch.partition].append(time.monotonic())
                    if batch.partition == 0:
                        assert not batch.records
                        assert batch.position >= batch.end
                    if time.monotonic() > began + 4:
                        break
            ended.set()
        for moments in heard.values():
            pauses = [b - a for a, b in zip([began, *moments], [*moments, began + 4], strict=True)]
            assert max(pauses) < 1.6  # a second and what a loaded machine adds

    async def test_catching_up_is_told(self, logs: Logs) -> None:
        """A follower of a backlog has position < end until it has everything, then position >= end."""
        log = await logs.member()
        start = await end_of(log, logs.content, 0)
        await asyncio.gather(*(put(log, logs.content, 0, fresh_key(), bytes(20_000)) for _ in range(200)))
        got, position = 0, start
        async with asyncio.timeout(WITHIN), aclosing(log.follow(logs.content, {0: start})) as following:
            async for batch in following:
                got += len(batch.records)
                assert batch.position >= position
                position = batch.position
                assert (got == 200) == (batch.position >= batch.end)
                if got == 200:
                    break
        assert position == start + 200

    # --- order, concurrency, cancelling ---

    async def test_order_is_kept(self, logs: Logs) -> None:
        """Records that one caller appends to a partition, many at a time, lie in the order of the calls."""
        log = await logs.member()
        start = await end_of(log, logs.content, 1)
        keys = [fresh_key() for _ in range(300)]
        stored = await asyncio.gather(*(put(log, logs.content, 1, key) for key in keys))
        assert [each.offset for each in stored] == list(range(start, start + 300))
        assert [each.key for each in await read_to_end(log, logs.content, 1, start)] == keys

    async def test_many_writers_lose_nothing(self, logs: Logs) -> None:
        """Appends of several members to the same partitions all end at offsets of their own."""
        members = [await logs.member() for _ in range(3)]
        sent: dict[tuple[int, int], bytes] = {}

        async def write(log: Log) -> None:
            for turn in range(60):
                key, number = fresh_key(), turn % 4
                stored = await put(log, logs.content, number, key, key * 10)
                assert (number, stored.offset) not in sent
                sent[number, stored.offset] = key

        await asyncio.gather(*(write(log) for log in members for _ in range(4)))
        assert len(sent) == 720
        for number in range(4):
            lowest = min(offset for of, offset in sent if of == number)
            found = {
                each.offset: each for each in await read_to_end(members[0], logs.content, number, lowest)
            }
            for (of, offset), key in sent.items():
                if of == number:
                    assert (found[offset].key, found[offset].value) == (key, key * 10)

    async def test_a_cancelled_append_is_ambiguous(self, logs: Logs) -> None:
        """A cancelled append raises CancelledError; its record is there once and whole, or not at all, and
        the records around it are not touched."""
        log = await logs.member()
        start = await end_of(log, logs.content, 2)
        keys = [fresh_key() for _ in range(40)]
        tasks = [asyncio.create_task(put(log, logs.content, 2, key, key)) for key in keys]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await put(log, logs.content, 2, fresh_key(), b"last")
        found = await read_to_end(log, logs.content, 2, start)
        assert len({each.key for each in found}) == len(found)
        assert all(each.key == each.value for each in found[:-1])
        at = {each.key: each.offset for each in found}
        for place, (key, result) in enumerate(zip(keys, results, strict=True)):
            if place % 2:
                assert isinstance(result, Stored)
                assert at[key] == result.offset
            else:
                assert isinstance(result, asyncio.CancelledError)

    async def test_an_answer_in_time_or_an_honest_error(self, logs: Logs) -> None:
        """What was not acknowledged within the time is Ambiguous, or NotStored and then never appears; what
        was acknowledged is there."""
        log = await logs.member()
        start = await end_of(log, logs.content, 3)
        keys = [fresh_key() for _ in range(60)]

        async def hurry(place: int) -> Stored:
            return await log.append(logs.content, 3, keys[place], b"v" * 5000, within=place % 20 / 2000)

        results = await asyncio.gather(*map(hurry, range(60)), return_exceptions=True)
        for _ in range(3):
            await put(log, logs.content, 3, fresh_key())
        at = {each.key: each.offset for each in await read_to_end(log, logs.content, 3, start)}
        for key, result in zip(keys, results, strict=True):
            if isinstance(result, Stored):
                assert at[key] == result.offset
            else:
                assert isinstance(result, NotStored | Ambiguous)
                assert not (isinstance(result, NotStored) and key in at)

    async def test_what_does_not_exist_is_misconfigured(self, logs: Logs) -> None:
        """A topic or a partition that is not there is said so."""
        log = await logs.member()
        with pytest.raises(Misconfigured):
            await log.append("no-such-topic", 0, b"k", b"v", within=WITHIN)
        with pytest.raises(Misconfigured):
            await log.append(logs.content, logs.partitions, b"k", b"v", within=WITHIN)

    # --- time ---

    @pytest.mark.parametrize("shift", [-1.8e9, 86_400.0], ids=["1970", "tomorrow"])
    async def test_time_ignores_the_clock_of_the_writer(
        self, logs: Logs, shift: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A writer whose clock says 1970 or tomorrow gets the log's time, and its record stays."""
        log, key, real = await logs.member(), fresh_key(), time.time
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: max(0.0, real() + shift))
            stored = await put(log, logs.content, 0, key)
        assert stored.time == pytest.approx(real(), abs=60)
        record = await log.read(logs.content, 0, stored.offset, key)
        assert record.time == pytest.approx(stored.time, abs=0.002)

    async def test_times_of_a_partition_never_decrease(self, logs: Logs) -> None:
        """Times grow with offsets."""
        log = await logs.member()
        start = await end_of(log, logs.content, 1)
        for _ in range(20):
            await put(log, logs.content, 1, fresh_key())
        times = [each.time for each in await read_to_end(log, logs.content, 1, start)]
        assert times == sorted(times)

    async def test_bounds_find_a_time(self, logs: Logs) -> None:
        """`since` is the first offset whose time is at least the time asked for; `end` if none."""
        log = await logs.member()
        for _ in range(10):
            await put(log, logs.content, 3, fresh_key())
            await asyncio.sleep(0.005)
        found = await read_to_end(log, logs.content, 3, BEGIN)
        bounds = await log.bounds(logs.content, 3)
        assert bounds.begin <= bounds.since <= found[0].offset
        assert bounds.end == found[-1].offset + 1
        assert 0 <= bounds.disk <= 1
        for record in found[-10:]:
            wanted = next(each.offset for each in found if each.time >= record.time)
            assert (await log.bounds(logs.content, 3, record.time)).since == wanted
        assert (await log.bounds(logs.content, 3, found[-1].time + 1000)).since == bounds.end

    # --- reading by offset ---

    async def test_read_says_why_not(self, logs: Logs) -> None:
        """Beyond the end is Unavailable, below begin is Gone; another key's record is never returned."""
        log, key = await logs.member(), fresh_key()
        stored = await put(log, logs.content, 2, key)
        end = await end_of(log, logs.content, 2)
        with pytest.raises(Unavailable):
            await log.read(logs.content, 2, end, key)
        with pytest.raises(LogError):
            await log.read(logs.content, 2, stored.offset, fresh_key())
        async with owning(log, logs.partitions) as keeper:
            await log.truncate(keeper.claims[2], logs.content, end)
        with pytest.raises(Gone):
            await log.read(logs.content, 2, stored.offset, key)

    async def test_a_compacted_offset_is_superseded(self, logs: Logs) -> None:
        """Asked for an offset that was compacted away, the log never returns its neighbour."""
        log, key, other = await logs.member(), fresh_key(), fresh_key()
        old = [await put(log, logs.compacted, 1, key, b"%d" % turn) for turn in range(5)]
        kept = await put(log, logs.compacted, 1, other, b"kept")
        await put(log, logs.compacted, 1, key, b"newest")
        await logs.compact(1)
        for each in old:
            with pytest.raises(Superseded):
                await log.read(logs.compacted, 1, each.offset, key)
        assert (await log.read(logs.compacted, 1, kept.offset, other)).value == b"kept"
        found = {each.key: each.value for each in await read_to_end(log, logs.compacted, 1)}
        assert (found[key], found[other]) == (b"newest", b"kept")

    async def test_caught_up_where_all_but_the_newest_are_gone(self, logs: Logs) -> None:
        """A follower from BEGIN of a partition that was compacted to its newest record gets to the end."""
        log, key = await logs.member(), fresh_key()
        start = await end_of(log, logs.compacted, 2)
        for turn in range(30):
            await put(log, logs.compacted, 2, key, b"%d" % turn)
        await logs.compact(2)
        end = await end_of(log, logs.compacted, 2)
        for begin in (BEGIN, start, start + 7):
            mine = [each for each in await read_to_end(log, logs.compacted, 2, begin) if each.key == key]
            assert [each.value for each in mine] == [b"29"]
        async with asyncio.timeout(WITHIN), aclosing(log.follow(logs.compacted, {2: start})) as following:
            async for batch in following:
                assert not batch.gap
                if batch.position >= batch.end:
                    break
        assert batch.position >= end

    # --- truncation ---

    async def test_offsets_grow_over_a_full_truncation(self, logs: Logs) -> None:
        """Truncate all, then append: begin is the old end, and no offset is used twice."""
        log = await logs.member()
        await put(log, logs.content, 0, fresh_key())
        end = await end_of(log, logs.content, 0)
        async with owning(log, logs.partitions) as keeper:
            await log.truncate(keeper.claims[0], logs.content, end)
        bounds = await log.bounds(logs.content, 0)
        assert (bounds.begin, bounds.end) == (end, end)
        assert await read_to_end(log, logs.content, 0) == []
        key = fresh_key()
        assert (await put(log, logs.content, 0, key)).offset == end
        assert [each.key for each in await read_to_end(log, logs.content, 0)] == [key]

    async def test_truncation_keeps_what_is_above(self, logs: Logs) -> None:
        """What is at or above `before` stays, other partitions are not touched, and begin never goes back."""
        log = await logs.member()
        keys = [fresh_key() for _ in range(6)]
        stored = [await put(log, logs.content, 1, key) for key in keys]
        other_key = fresh_key()
        other = await put(log, logs.content, 3, other_key)
        async with owning(log, logs.partitions) as keeper:
            await log.truncate(keeper.claims[1], logs.content, stored[3].offset)
            await log.truncate(keeper.claims[1], logs.content, stored[1].offset)
        assert (await log.bounds(logs.content, 1)).begin == stored[3].offset
        assert [each.key for each in await read_to_end(log, logs.content, 1)] == keys[3:]
        assert (await log.read(logs.content, 3, other.offset, other_key)).key == other_key

    async def test_a_gap_is_told(self, logs: Logs) -> None:
        """A follower that starts below begin goes on at begin and says so once."""
        log = await logs.member()
        stored = [await put(log, logs.content, 2, fresh_key()) for _ in range(4)]
        async with owning(log, logs.partitions) as keeper:
            await log.truncate(keeper.claims[2], logs.content, stored[2].offset)
        seen: list[Batch] = []
        following = log.follow(logs.content, {2: stored[0].offset})
        async with asyncio.timeout(WITHIN), aclosing(following):
            async for batch in following:
                seen.append(batch)
                if sum(len(each.records) for each in seen) == 2 and len(seen) > 2:
                    break
        assert [each.gap for each in seen].count(True) == 1
        first = next(each for each in seen if each.gap or each.records)
        assert first.gap
        assert seen[-1].position == stored[3].offset + 1

    async def test_a_slow_follower_misses_nothing_silently(self, logs: Logs) -> None:
        """When records are truncated while a follower is busy, it gets them or is told of the gap."""
        log = await logs.member()
        start = await end_of(log, logs.content, 3)
        async with (
            asyncio.timeout(WITHIN),
            owning(log, logs.partitions) as keeper,
            aclosing(log.follow(logs.content, {3: start})) as following,
        ):
            await anext(following)
            for _ in range(12):
                last = await put(log, logs.content, 3, fresh_key(), bytes(900_000))
            await log.truncate(keeper.claims[3], logs.content, last.offset)
            expected, gaps = start, 0
            async for batch in following:
                if batch.gap:
                    gaps += 1
                    expected = max(expected, last.offset)
                for record in batch.records:
                    assert record.offset == expected
                    expected += 1
                assert batch.position == expected
                if batch.position == last.offset + 1:
                    break
        assert gaps <= 1

    # --- claims ---

    async def test_one_member_owns_everything(self, logs: Logs) -> None:
        """The only member gains every number once; leaving, it is told of every loss, with held() False."""
        log, ledger = await logs.member(), Ledger()
        keeper = Keeper("a", ledger)
        async with log.own(ledger.group, keeper):
            await until(lambda: ledger.covered(logs.partitions))
            claims = dict(keeper.claims)
            assert sorted(claims) == list(range(logs.partitions))
            assert all(claim.group == ledger.group for claim in claims.values())
        assert not any(claim.held() for claim in claims.values())
        assert sorted(ledger.diary) == sorted(
            (word, "a", number) for word in ("gained", "lost") for number in range(logs.partitions)
        )

    async def test_a_kept_number_keeps_its_claim(self, logs: Logs) -> None:
        """When a member joins or leaves, what another one keeps it keeps without a call, held throughout."""
        log, ledger = await logs.member(), Ledger()
        first, second = Keeper("a", ledger), Keeper("b", ledger)
        async with log.own(ledger.group, first):
            await until(lambda: ledger.covered(logs.partitions))
            before = dict(first.claims)
            async with (await logs.member()).own(ledger.group, second):
                await until(lambda: bool(second.claims) and ledger.covered(logs.partitions))
                kept = {number: claim for number, claim in before.items() if number not in second.claims}
                assert kept
                assert all(first.claims[number] is claim and claim.held() for number, claim in kept.items())
            await until(lambda: len(first.claims) == logs.partitions and ledger.covered(logs.partitions))
            assert all(first.claims[number] is claim and claim.held() for number, claim in kept.items())
            for number in kept:
                assert [entry for entry in ledger.diary if entry[2] == number] == [("gained", "a", number)]
        assert not ledger.split

    async def test_lost_comes_before_gained(self, logs: Logs) -> None:
        """held() is False and lost() was called before another member's gained()."""
        log, ledger = await logs.member(), Ledger()
        first, second = Keeper("a", ledger), Keeper("b", ledger)
        async with (await logs.member()).own(ledger.group, second):
            async with log.own(ledger.group, first):
                await until(lambda: bool(first.claims and second.claims) and ledger.covered(logs.partitions))
            assert not first.claims
            await until(lambda: len(second.claims) == logs.partitions)
        for number in range(logs.partitions):
            mine = [(word, name) for word, name, of in ledger.diary if of == number]
            for before, after in pairwise(mine):
                assert after[0] == "lost" or before[0] == "lost"
        assert not ledger.split

    async def test_numbers_never_split(self, logs: Logs) -> None:
        """Over 20 changes of membership no number is held twice, and each time all are held again."""
        chance, ledger = Random(7), Ledger()
        members = [await logs.member() for _ in range(3)]
        inside: dict[int, tuple[AsyncExitStack, Keeper]] = {}
        for change in range(20):
            who = chance.randrange(3)
            if who in inside and len(inside) > 1:
                stack, keeper = inside.pop(who)
                await stack.aclose()
                assert not keeper.claims
            elif who in inside:
                who = (who + 1) % 3
            if who not in inside and (len(inside) < 3):
                stack, keeper = AsyncExitStack(), Keeper(f"{who}-{change}", ledger)
                await stack.enter_async_context(members[who].own(ledger.group, keeper))
                inside[who] = (stack, keeper)
            await until(
                lambda: (
                    ledger.covered(logs.partitions)
                    and sum(len(keeper.claims) for _, keeper in inside.values()) == logs.partitions
                    and all(keeper.claims for _, keeper in inside.values())
                )
            )
            assert not ledger.split
        for stack, _ in inside.values():
            await stack.aclose()
        assert not ledger.split
        assert not any(claim.held() for claim in ledger.newest.values())

    async def test_nothing_is_done_without_the_claim(self, logs: Logs) -> None:
        """append, commit and truncate under a claim that ended are NotOwner and change nothing."""
        log = await logs.member()
        start = await end_of(log, logs.content, 0)
        async with owning(log, logs.partitions) as keeper:
            claim = keeper.claims[0]
            stored = await log.append(logs.content, 0, fresh_key(), b"v", within=WITHIN, claim=claim)
        with pytest.raises(NotOwner):
            await log.append(logs.content, 0, fresh_key(), b"v", within=WITHIN, claim=claim)
        with pytest.raises(NotOwner):
            await log.commit(claim, logs.content, start)
        with pytest.raises(NotOwner):
            await log.commit(claim, logs.content)
        with pytest.raises(NotOwner):
            await log.truncate(claim, logs.content, stored.offset + 1)
        bounds = await log.bounds(logs.content, 0)
        assert (bounds.begin <= start, bounds.end) == (True, stored.offset + 1)

    async def test_positions_outlive_their_owner(self, logs: Logs) -> None:
        """A committed position is what the next owner is told: None before the first, one for each topic and
        number."""
        log, ledger = await logs.member(), Ledger()
        keeper = Keeper("a", ledger)
        async with log.own(ledger.group, keeper):
            await until(lambda: ledger.covered(logs.partitions))
            assert await log.commit(keeper.claims[1], logs.content) is None
            assert await log.commit(keeper.claims[1], logs.content, 17) == 17
            assert await log.commit(keeper.claims[1], logs.compacted, 0) == 0
            assert await log.commit(keeper.claims[2], logs.content) is None
        log = await logs.member()
        keeper = Keeper("b", ledger)
        async with log.own(ledger.group, keeper):
            await until(lambda: len(keeper.claims) == logs.partitions)
            assert await log.commit(keeper.claims[1], logs.content) == 17
            assert await log.commit(keeper.claims[1], logs.compacted) == 0
            assert await log.commit(keeper.claims[2], logs.content) is None
            assert await log.commit(keeper.claims[1], logs.content, 3) == 3
            assert await log.commit(keeper.claims[1], logs.content) == 3
        async with owning(log, logs.partitions) as other:
            assert await log.commit(other.claims[1], logs.content) is None
