"""Claims over Kafka between processes: a member that is frozen or killed."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from libs.log.contract import Claim, NotOwner
from libs.log.kafka import KafkaLog
from libs.log.kafka_group import SESSION_S
from tests.helpers.kafka import fresh, log_on
from tests.helpers.patience import until
from tests.log.contract import Keeper, Ledger

PARTITIONS = 4
ROOT = Path(__file__).parents[2]


class Other:
    """The member in another process."""

    def __init__(self, process: "subprocess.Popen[bytes]", path: Path) -> None:
        self._process, self._path = process, path

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def lines(self) -> list[dict[str, Any]]:
        """Everything it has said; a line that is still being written is left out."""
        return [json.loads(line) for line in self._path.read_text().split("\n")[:-1]]

    def holds(self) -> list[int]:
        seen = [line["held"] for line in self.lines() if "held" in line]
        return seen[-1] if seen else []

    def last_held(self, number: int) -> float:
        """When it last saw that it held `number`."""
        return max(float(line["at"]) for line in self.lines() if number in line.get("held", ()))


@contextmanager
def other(bootstrap: tuple[str, ...], prefix: str, group: str, directory: Path) -> Iterator[Other]:
    path = directory / "member.out"
    command = [
        sys.executable,
        "-m",
        "tests.log.kafka_member",
        ",".join(bootstrap),
        prefix,
        str(PARTITIONS),
        group,
    ]
    with path.open("w") as out:
        process = subprocess.Popen(command, stdout=out, cwd=ROOT)
    try:
        yield Other(process, path)
    finally:
        process.kill()
        process.wait()


class Timed(Keeper):
    """A Keeper that notes when it gained what."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        super().__init__(name, ledger)
        self.gained_at: dict[int, float] = {}

    def gained(self, claim: Claim) -> None:
        super().gained(claim)
        self.gained_at[claim.partition] = time.monotonic()


@pytest.fixture
async def log(broker: tuple[str, ...]) -> AsyncIterator[KafkaLog]:
    async with log_on(broker, partitions=PARTITIONS) as started:
        yield started


async def test_a_killed_members_numbers_move(
    broker: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """After kill -9 of one of two members the other one holds every number within a few
    sessions, and kept its own meanwhile."""
    prefix, ledger = fresh(), Ledger()
    async with log_on(broker, prefix=prefix, partitions=PARTITIONS) as log:
        mine = Timed("here", ledger)
        with other(broker, prefix, ledger.group, tmp_path) as there:
            await until(lambda: len(there.holds()) == PARTITIONS)
            async with log.own(ledger.group, mine):
                await until(lambda: len(there.holds()) == 2 and len(mine.claims) == 2)
                before = dict(mine.claims)
                began = time.monotonic()
                there.send(signal.SIGKILL)
                await until(lambda: ledger.covered(PARTITIONS))
                assert time.monotonic() - began < 4 * SESSION_S
                for number in before.keys() & mine.claims.keys():
                    assert mine.claims[number] is before[number]
                for number in mine.claims.keys() - before.keys():
                    assert there.last_held(number) < mine.gained_at[number]


async def test_a_frozen_member_holds_nothing_when_it_wakes(
    broker: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """A member frozen for longer than its session sees, in its first look after waking, that it holds nothing
    that another one has gained; then it is given numbers again, never at the same time as another one."""
    prefix, ledger = fresh(), Ledger()
    async with log_on(broker, prefix=prefix, partitions=PARTITIONS) as log:
        mine = Timed("here", ledger)
        with other(broker, prefix, ledger.group, tmp_path) as there:
            await until(lambda: len(there.holds()) == PARTITIONS)
            async with log.own(ledger.group, mine):
                await until(lambda: len(there.holds()) == 2 and len(mine.claims) == 2)
                there.send(signal.SIGSTOP)
                await until(lambda: ledger.covered(PARTITIONS))
                gained, everything = mine.gained_at.keys(), dict(mine.claims)
                woken = time.monotonic()
                there.send(signal.SIGCONT)
                await until(lambda: bool(there.holds()) and len(mine.claims) < PARTITIONS)
                await until(lambda: len(there.holds()) + len(mine.claims) == PARTITIONS)
                told = [line["gained"] for line in there.lines() if "gained" in line and line["at"] > woken]
                assert sorted(told) == sorted(there.holds())
                assert not any(everything[number].held() for number in told)
            for number in gained:
                again = [line["at"] for line in there.lines() if line.get("gained") == number]
                back = min((at for at in again if at > woken), default=float("inf"))
                held = [line["at"] for line in there.lines() if number in line.get("held", ())]
                assert not [at for at in held if woken < at < back]


async def test_a_position_needs_the_claim_of_today(log: KafkaLog) -> None:
    """After a rebalance that took the number away, a commit under the old claim is NotOwner."""
    ledger = Ledger()
    first, second = Keeper("a", ledger), Keeper("b", ledger)
    async with log.own(ledger.group, first):
        await until(lambda: ledger.covered(PARTITIONS))
        old = dict(first.claims)
        async with log.own(ledger.group, second):
            await until(lambda: len(second.claims) == 2 and ledger.covered(PARTITIONS))
            for number, claim in old.items():
                if number in second.claims:
                    with pytest.raises(NotOwner):
                        await log.commit(claim, "content", 5)
                else:
                    assert await log.commit(claim, "content", 5) == 5


async def test_leaving_in_a_rebalance_holds_nobody_up(log: KafkaLog) -> None:
    """A member that leaves while it is still joining is out at once: the other one has every number again
    long before a session would have ended."""
    ledger = Ledger()
    first, second = Keeper("a", ledger), Keeper("b", ledger)
    async with log.own(ledger.group, first):
        await until(lambda: ledger.covered(PARTITIONS))
        for pause in (0.05, 0.3, 0.8, 1.2):
            began = time.monotonic()
            async with log.own(ledger.group, second):
                await asyncio.sleep(pause)
            await until(lambda: ledger.covered(PARTITIONS) and len(first.claims) == PARTITIONS)
            await asyncio.sleep(1.5)
            await until(lambda: ledger.covered(PARTITIONS) and len(first.claims) == PARTITIONS)
            assert time.monotonic() - began < pause + SESSION_S
    assert not ledger.split


@pytest.mark.parametrize("word", ["gained", "lost"])
async def test_what_an_owner_raises_comes_out(log: KafkaLog, word: str) -> None:
    """An exception in a callback ends the body and comes out of `own`; the member leaves the group."""

    class Wrong(Exception):  # noqa: N818
        pass

    class Owner:
        def gained(self, claim: Claim) -> None:
            if word == "gained":
                raise Wrong

        def lost(self, claim: Claim) -> None:
            if word == "lost":
                raise Wrong

    ledger = Ledger()

    async def be_a_member() -> None:
        async with log.own(ledger.group, Owner()):
            if word == "gained":
                await asyncio.Event().wait()
            await asyncio.sleep(1)

    with pytest.raises(Wrong):
        await be_a_member()
    keeper = Keeper("next", ledger)
    async with log.own(ledger.group, keeper):
        await until(lambda: ledger.covered(PARTITIONS), within=SESSION_S - 1)
