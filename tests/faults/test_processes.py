"""Several processes of ingest on one port: what ends one of them, or their parent, loses no mail."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.client import Client
from tests.helpers.patience import until
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
    mail.office.example  A 127.0.0.2
"""
ANN = "ann@office.example"
COUNT = 2


@asynccontextmanager
async def several(folder: Path, broker: tuple[str, ...], **more: Any) -> AsyncIterator[Running]:
    """ingest with two processes and control, ready; office.example added. Nobody verifies."""
    async with Zone(ZONE) as zone:
        running = Running(
            folder,
            dns=zone.servers,
            dial_port=25,
            kafka=broker,
            smtp__processes=str(COUNT),
            timing__rcpt_deadline_s="0.1",
            timing__verdict_deadline_s="0.1",
            **more,
        )
        running.names = ("ingest", "control")
        async with running:
            said = await running.ask("domain", "add", "office.example")
            assert said.code == 0, said.err
            await all_ready(running)
            yield running


async def all_ready(running: Running) -> None:
    async def ready() -> bool:
        return await running.metric("ingest", "backupmx_processes_ready") == COUNT

    await until(ready)


def pids(running: Running) -> dict[int, int]:
    """The newest process of each number."""
    lines = [line for line in running.lines("ingest") if line.get("event") == "process started"]
    return {line["process"]: line["pid"] for line in lines}


async def sessions(running: Running) -> list[float]:
    """How many sessions each process has had."""
    return [
        await running.metric("ingest", f'backupmx_sessions_total{{process="{number}"}}')
        for number in range(COUNT)
    ]


async def test_a_killed_process_loses_nothing(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """kill -9 of one process under load: every mail that got 250 is in the queue, the other process goes on,
    and a new one takes the place. The pages speak for all; SIGTERM drains all."""
    async with several(tmp_path, broker) as running:
        accepted: list[str] = []
        stop = asyncio.Event()

        async def send() -> None:
            while not stop.is_set():
                with contextlib.suppress(ConnectionError, AssertionError):
                    async with Client(running.smtp_port) as client:
                        await client.greet()
                        for _ in range(5):
                            reply = await client.mail(ANN)
                            if reply.startswith("250 "):
                                accepted.append(reply.rpartition(" ")[2])

        senders = [asyncio.create_task(send()) for _ in range(4)]

        async def both_serve() -> bool:
            return min(await sessions(running)) >= 2

        await until(both_serve)
        before = pids(running)
        os.kill(before[0], signal.SIGKILL)
        ready = await running.page("ingest", "readyz")
        assert ready is not None
        assert ready.status_code == 200
        await running.until(lambda: pids(running)[0] != before[0])
        await all_ready(running)
        assert await running.metric("ingest", "backupmx_process_deaths_total") == 1
        stop.set()
        await asyncio.gather(*senders)
        assert pids(running)[1] == before[1]
        assert await running.stop("ingest") == 0
        assert not any(psutil.pid_exists(pid) for pid in pids(running).values())
        queued = {row["queue_id"] for row in (await running.ask("queue", "list", "--json")).rows}
        assert len(accepted) > 20
        assert set(accepted) <= queued


async def test_sessions_go_on_when_one_is_told_to_drain(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """SIGTERM to the parent: sessions of every process go on for drain_s, then hear 421."""
    async with several(tmp_path, broker, smtp__drain_s="10.0") as running:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(running.smtp_port)) for _ in range(8)]
            for client in clients:
                await client.greet()
            running.send("ingest", signal.SIGTERM)

            async def unready() -> bool:
                page = await running.page("ingest", "readyz")
                return page is not None and page.status_code == 503

            await until(unready)
            for client in clients:
                assert (await client.mail(ANN)).startswith("250 ")
            for client in clients:
                assert (await client.reply()).startswith("421 4.3.2")
        assert await running.ended("ingest") == 0


async def test_a_killed_parent(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """kill -9 of the parent: its processes see it and end, and the next parent has the port for itself."""
    async with several(tmp_path, broker) as running:
        children = pids(running).values()
        await running.kill("ingest")
        await running.until(lambda: not any(psutil.pid_exists(pid) for pid in children))
        await running.start("ingest")
        await running.ready("ingest")
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail(ANN)).startswith("250 ")
