"""A domain is down for a month beside one whose mail goes through: the disk has what waits, not what went by.

A hundredth of 1 GB a day, on a clock that is moved, over the real file; both in one partition.
"""

from pathlib import Path

import pytest

from services.deliver.shard import Shard
from tests.deliver.house import ZONE, House, house
from tests.helpers.clock import Clock
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

pytestmark = pytest.mark.long

DAYS, STEPS = 29, 4
MAILS, WAITING = 100, 5  # of a day
SIZE = 100_000
CONTENT = b"Subject: large\r\n\r\n" + b"a line of it, of fifty octets, as they come by..\r\n" * (SIZE // 50)
NAMES = [f"down{number}.example" for number in range(10)]
AWAY = "\n".join(f"{name}  MX 10 away.example\n{name}  MX 20 mx1.backup.example" for name in NAMES)
A_DAY = (MAILS + WAITING) * len(CONTENT)


def on_disk(folder: Path) -> int:
    """The file of the log and what is written ahead of it."""
    return sum(each.stat().st_size for each in folder.glob("log.sqlite*"))


async def step(home: House, shard: Shard, clock: Clock, down: str, number: int) -> None:
    """Six hours: mail goes through, some waits, then housekeeping has its turn."""
    waits = WAITING // STEPS + (number % STEPS < WAITING % STEPS)
    for _ in range(waits):
        await home.queue(f"bob@{down}", domain=down, content=CONTENT, may_notify=False)
    await home.ended([await home.queue(content=CONTENT) for _ in range(MAILS // STEPS)])
    clock.advance(24 / STEPS * 3600)
    await shard.partition.append("events", b"x", b"{}")  # the log's clock agrees
    await shard.upkeep.moving.round()
    await shard.upkeep.truncate()
    await home.log.sweep()  # type: ignore[attr-defined]


async def test_a_month(tmp_path: Path) -> None:
    """At the end of each day at most twice what waits and the mail of two days."""
    clock = Clock()
    async with (
        Zone(f"{ZONE}\n{AWAY}\naway.example  A 127.0.0.9\n") as zone,
        Primary() as primary,
        house(tmp_path, primary, zone.servers, clock) as home,
    ):
        down = next(name for name in NAMES if home.partition(name) == home.partition("office.example"))
        await home.domain(down)
        async with home.sharing() as common, home.shard(common) as shard:
            for number in range(DAYS * STEPS):
                await step(home, shard, clock, down, number)
                primary.received.clear()
                live = shard.partition.index.count(down).octets
                if number % STEPS == STEPS - 1:
                    day, used = number // STEPS + 1, on_disk(tmp_path)
                    print(f"day {day}: {live / 1e6:.1f} MB wait, {used / 1e6:.1f} MB on the disk")
                    assert used <= 2 * live + 2 * A_DAY, f"day {day}"
            assert live == DAYS * WAITING * len(CONTENT)
