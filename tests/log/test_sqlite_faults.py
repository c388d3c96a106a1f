"""The embedded log when things go wrong: killed processes, two processes, full disks, broken disks."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from libs.log.contract import BEGIN, Ambiguous, Batch, LogError, Misconfigured, NotStored, Stored, Unavailable
from libs.log.sqlite import InUse, SqliteLog
from libs.runtime.clock import SystemClock
from tests.helpers.patience import until
from tests.log.appender import value
from tests.log.contract import put, read_to_end

ROOT = Path(__file__).parent.parent.parent


def opened(path: Path, **settings: object) -> SqliteLog:
    return SqliteLog(path, **{"partitions": 4, "clock": SystemClock(), **settings})  # type: ignore[arg-type]


@asynccontextmanager
async def appending(path: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that appends until it is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.log.appender", str(path), *arguments,
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def acknowledged(process: asyncio.subprocess.Process, count: int) -> list[str]:
    """The next `count` whole lines of the process."""
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(count)]
    assert all(line.endswith(b"\n") for line in lines), await process.stderr.read()  # type: ignore[union-attr]
    return [line.decode() for line in lines]


async def remaining(process: asyncio.subprocess.Process) -> list[str]:
    """All whole lines that an ended process still had printed."""
    assert process.stdout is not None
    return [line for line in (await process.stdout.read()).decode().splitlines(True) if line.endswith("\n")]


async def assert_all_there(log: SqliteLog, lines: list[str]) -> None:
    """Every acknowledged record is at its offset, and no record of the log is altered."""
    assert lines
    for line in lines:
        topic, number, offset, key = line.split()
        record = await log.read(topic, int(number), int(offset), key.encode())
        assert record.value == value(record.key)
    for topic in ("content", "queue"):
        for partition in range(4):
            records = await read_to_end(log, topic, partition)
            assert [each.offset for each in records] == list(range(len(records)))
            assert all(each.value == value(each.key) for each in records)


async def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """kill -9 at any moment: every acknowledged record is there afterwards, none altered, offsets go on."""
    path, lines = tmp_path / "log.db", []
    for count in (1, 700, 300):
        async with appending(path, "20") as process:
            lines += await acknowledged(process, count)
            process.kill()
            lines += await remaining(process)
    async with opened(path) as log:
        assert not log.created
        await assert_all_there(log, lines)
    places = [tuple(line.split()[:3]) for line in lines]
    assert len(set(places)) == len(places)


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second process is told in a sentence that the log is in use, and gets it when the first ended."""
    path = tmp_path / "log.db"
    async with appending(path, "2") as process:
        lines = await acknowledged(process, 5)
        with pytest.raises(InUse, match=r"^the log .*log\.db is in use by another process$"):
            await opened(path).start()
        lines += await acknowledged(process, 5)
        process.kill()
        lines += await remaining(process)
        await process.wait()
        async with opened(path) as log:
            await assert_all_there(log, lines)
            with pytest.raises(InUse):
                await opened(path).start()
            await put(log, "content", 0, b"k")


async def test_an_error_of_the_disk_ends_the_process(tmp_path: Path) -> None:
    """After an I/O error from a commit nothing may be promised: the process says so and ends with EX_IOERR;
    what it acknowledged before is there."""
    path = tmp_path / "log.db"
    async with appending(path, "20", str(3 * 2**20)) as process:
        assert process.stdout is not None
        said = (await process.stdout.read()).decode()
        assert await process.wait() == 74
    assert "cannot be written (SQLITE_IOERR" in said
    async with opened(path) as log:
        await assert_all_there(log, re.findall(r"\w+ \d+ \d+ [0-9a-f]{32}", said))


async def test_after_an_error_of_the_disk_nothing_is_acknowledged(tmp_path: Path) -> None:
    """The appends of the failed commit are Ambiguous, later ones NotStored, commits Unavailable."""
    told: list[str] = []
    async with opened(tmp_path / "log.db", fatal=told.append) as log:
        await put(log, "queue", 0, b"before")
        log._writer._connection.execute("DROP TABLE ends")  # the next commit fails, and not for want of room
        results = await asyncio.gather(
            *(put(log, "queue", 0, b"k%d" % turn) for turn in range(5)), return_exceptions=True
        )
        assert all(isinstance(each, Ambiguous) for each in results[:1])
        assert all(isinstance(each, Ambiguous | NotStored) for each in results)
        assert len(told) == 1
        with pytest.raises(NotStored):
            await put(log, "queue", 0, b"later")
        with pytest.raises(NotStored):
            await log.sweep()
        assert [each.key for each in await read_to_end(log, "queue", 0)] == [b"before"]


# --- full disks ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounting.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounting.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def fill(log: SqliteLog, topic: str, size: int) -> list[tuple[int, bytes]]:
    """Append until the log refuses: (offset, key) of all that was acknowledged."""
    stored: list[tuple[int, bytes]] = []
    for turn in range(20_000):
        key = b"%s-%d" % (topic.encode(), turn)
        try:
            stored.append(((await put(log, topic, 1, key, key.ljust(size, b"."))).offset, key))
        except NotStored:
            return stored
    raise AssertionError("the log was never full")


async def test_a_full_disk(small_disk: Path) -> None:
    """Content is refused (NotStored) while there is room for state; state is stored to the end; nothing
    acknowledged is lost, a refused record never appears, and with new room all goes on."""
    filler = small_disk / "filler"
    filler.write_bytes(bytes(6 * 2**20))
    async with opened(small_disk / "log.db", reserve=(0.4, 0), free_every_s=0.0) as log:
        content = await fill(log, "content", 50_000)
        assert len(content) > 20
        state = [
            ((await put(log, "queue", 1, key, bytes(400))).offset, key)
            for key in (b"queue-early-%d" % turn for turn in range(500))
        ]
        with pytest.raises(NotStored, match="too few for content"):
            await put(log, "content", 1, b"refused")
        state += await fill(log, "queue", 100_000)
        with pytest.raises(NotStored, match="full"):
            await put(log, "queue", 1, b"refused", bytes(100_000))
        assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize < 2 * 2**20
        filler.unlink()
        after = await put(log, "queue", 1, b"after")
        state.append((after.offset, b"after"))
        assert after.offset == len(state) - 1
    async with opened(small_disk / "log.db", reserve=(0, 0)) as log:
        for topic, wanted in (("content", content), ("queue", state)):
            found = await read_to_end(log, topic, 1, BEGIN)
            assert [(each.offset, each.key) for each in found] == wanted
        await put(log, "content", 1, b"welcome")


async def test_a_file_at_its_limit(tmp_path: Path) -> None:
    """When the file may not grow, what does not fit is NotStored, and the state beside it is stored."""
    async with opened(tmp_path / "log.db", page_limit=400, reserve=(0, 0)) as log:
        results = await asyncio.gather(
            *(put(log, "content", 0, b"big", bytes(900_000)) for _ in range(6)),
            *(put(log, "queue", 2, b"state-%d" % turn) for turn in range(20)),
            return_exceptions=True,
        )
        assert any(isinstance(each, NotStored) for each in results[:6])
        assert all(isinstance(each, Stored) for each in results[6:])
        stored = [each.offset for each in results[:6] if isinstance(each, Stored)]
        assert [each.offset for each in await read_to_end(log, "content", 0)] == stored
        assert len(await read_to_end(log, "queue", 2)) == 20


async def test_content_leaves_room_for_state(tmp_path: Path) -> None:
    """Content needs more free than the larger of 5 % and 1 GiB; with more it is stored at once."""
    free, disk = 2**30 - 1, 10 * 2**30

    def space() -> tuple[int, int]:
        return free, disk

    async with opened(tmp_path / "log.db", free=space, free_every_s=0.0) as log:
        with pytest.raises(NotStored):
            await put(log, "content", 0, b"k")
        await put(log, "queue", 0, b"k")
        await put(log, "events", 0, b"k")
        assert (await log.bounds("queue", 0)).disk == pytest.approx(0.9, abs=0.001)
        free = 2**30
        await put(log, "content", 0, b"k")
        disk = 21 * 2**30
        with pytest.raises(NotStored):
            await put(log, "content", 0, b"k")


# --- files that are none of ours ---


async def test_a_file_of_something_else(tmp_path: Path) -> None:
    """A file that is no log is not touched: one sentence."""
    path = tmp_path / "log.db"
    path.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(Misconfigured, match="cannot be used as a log"):
        await opened(path).start()
    assert path.read_bytes() == b"Dear diary, " * 1000


async def read_on(following: AsyncGenerator[Batch, None], waiting: "asyncio.Future[Batch]") -> None:
    await waiting
    async for _ in following:
        pass


async def test_a_closed_log_says_so(tmp_path: Path) -> None:
    """After close() appends are NotStored, everything else is Unavailable, and a follower ends so."""
    log = opened(tmp_path / "log.db")
    await log.start()
    following = log.follow("queue", {0: BEGIN})
    await anext(following)
    waiting = asyncio.ensure_future(anext(following))
    last = asyncio.ensure_future(put(log, "queue", 1, b"last"))
    await asyncio.sleep(0)
    await log.close()
    assert (await last).offset == 0
    await asyncio.wait({waiting})
    with pytest.raises(Unavailable):
        await read_on(following, waiting)
    with pytest.raises(NotStored):
        await put(log, "queue", 0, b"k")
    for trying in (log.read("queue", 1, 0, b"last"), log.bounds("queue", 1)):
        with pytest.raises(LogError):
            await trying
    await log.close()
    async with opened(tmp_path / "log.db") as again:
        await until(lambda: not again.created)
        assert (await again.read("queue", 1, 0, b"last")).key == b"last"
