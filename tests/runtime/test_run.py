"""The life of a process: what starts and drains when, and what ends it."""

import asyncio
import os
import signal

import pytest

from libs.runtime.run import Life, Phase, Service, ServiceFailed, run
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S


class House:
    """Services that note what happens to them. `story`: in order."""

    def __init__(self, *names: str) -> None:
        self.story: list[str] = []
        self.lives = [Life(name, Clock()) for name in names]
        self.services = [Service(name, self.main) for name in names]
        self.fails: dict[str, BaseException | None] = {}
        self.fail = asyncio.Event()
        self.never_ready: set[str] = set()
        self.never_drained: set[str] = set()
        self.all_ready = asyncio.Event()

    async def main(self, life: Life) -> None:
        self.story.append(f"{life.name} starts")
        try:
            if life.name in self.never_ready:
                await asyncio.Event().wait()
            await asyncio.sleep(0)  # whoever started too early would be noted before this one
            self.story.append(f"{life.name} ready")
            life.ready()
            if all(each.phase is Phase.READY for each in self.lives):
                self.all_ready.set()
            if life.name in self.fails:
                await self.fail.wait()
                if error := self.fails[life.name]:
                    raise error
                return
            await life.must_drain.wait()
            assert life.phase is Phase.DRAINING
            if life.name in self.never_drained:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            self.story.append(f"{life.name} drained")
        except asyncio.CancelledError:
            self.story.append(f"{life.name} cancelled")
            raise

    def run(self) -> "asyncio.Task[None]":
        return asyncio.create_task(run(self.services, self.lives))

    async def until(self, line: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while line not in self.story:  # noqa: ASYNC110 the story is a list
                await asyncio.sleep(0)


async def test_order_of_start_and_drain() -> None:
    """The last starts first, each when the one before is ready; the first drains first."""
    house = House("ingest", "verify", "log")
    running = house.run()
    await house.all_ready.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert house.story == [
        "log starts", "log ready", "verify starts", "verify ready", "ingest starts", "ingest ready",
        "ingest drained", "verify drained", "log drained",
    ]  # fmt: skip
    assert {life.phase for life in house.lives} == {Phase.ENDED}


async def test_sigint_ends_too() -> None:
    """^C is a SIGTERM."""
    house = House("solo")
    running = house.run()
    await house.all_ready.wait()
    os.kill(os.getpid(), signal.SIGINT)
    await running
    assert house.story[-1] == "solo drained"


async def test_sigterm_while_restoring() -> None:
    """A service whose doors are shut is cancelled, later ones never start, earlier ones drain: no error."""
    house = House("ingest", "verify", "log")
    house.never_ready = {"verify"}
    running = house.run()
    await house.until("verify starts")
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert house.story == ["log starts", "log ready", "verify starts", "verify cancelled", "log drained"]


async def test_a_failing_service_ends_the_process_with_its_error() -> None:
    """The others drain in their order, then the error is raised with the service's name."""
    house = House("ingest", "verify", "log")
    house.fails = {"verify": OSError("disk is gone")}
    running = house.run()
    await house.all_ready.wait()
    house.fail.set()
    with pytest.raises(ServiceFailed, match="verify ended by itself") as caught:
        await running
    assert str(caught.value.__cause__) == "disk is gone"
    assert house.story[-2:] == ["ingest drained", "log drained"]


async def test_a_service_that_just_returns_has_failed() -> None:
    """A process whose service is gone must not look alive."""
    house = House("ingest", "log")
    house.fails = {"ingest": None}
    running = house.run()
    await house.all_ready.wait()
    house.fail.set()
    with pytest.raises(ServiceFailed, match="ingest ended by itself"):
        await running
    assert house.story[-1] == "log drained"


async def test_a_failure_before_the_others_started() -> None:
    """Services that need the failed one are never started."""
    house = House("ingest", "log")

    async def cannot(life: Life) -> None:
        raise ValueError("wrong file")

    house.services[1] = Service("log", cannot)
    with pytest.raises(ServiceFailed, match="log ended by itself"):
        await house.run()
    assert house.story == []


async def test_an_error_while_draining_is_not_lost() -> None:
    """Who fails after SIGTERM has failed all the same."""
    house = House("ingest", "log")

    async def main(life: Life) -> None:
        life.ready()
        house.all_ready.set()
        await life.must_drain.wait()
        raise ValueError("could not write its state")

    house.services[0] = Service("ingest", main)
    running = house.run()
    await house.all_ready.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(ServiceFailed, match="ingest failed while it drained"):
        await running
    assert house.story[-1] == "log drained"


async def test_a_second_signal_cuts_the_draining_short() -> None:
    """Who presses ^C twice does not want to wait for the longest attempt."""
    house = House("ingest", "log")
    house.never_drained = {"ingest"}
    running = house.run()
    await house.all_ready.wait()
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(house.lives[0].must_drain.wait(), PATIENCE_S)
    os.kill(os.getpid(), signal.SIGINT)
    await running
    assert "ingest cancelled" in house.story
    assert {life.phase for life in house.lives} == {Phase.ENDED}


async def test_a_cancelled_run_leaves_nothing_running() -> None:
    """Whoever cancels the process' coroutine gets its services ended as well."""
    house = House("ingest", "log")
    running = house.run()
    await house.all_ready.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(house.story[-2:]) == ["ingest cancelled", "log cancelled"]


def test_progress_is_measured_on_the_monotonic_clock() -> None:
    """stalled_s counts from the last progress, whatever the wall clock does."""
    clock = Clock()
    life = Life("deliver", clock)
    clock.advance(5)
    life.progress()
    clock.advance(61)
    clock.jump_wall(-3600)
    assert life.stalled_s == 61
