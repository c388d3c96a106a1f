"""SIGTERM to whole processes: who hears what, in which order, and that a commit is never cut."""

import asyncio
import signal
from pathlib import Path

import pytest

from deploy.kafka.cluster import Cluster
from tests.helpers.client import Client
from tests.helpers.patience import PATIENCE_S
from tests.helpers.running import Running
from tests.helpers.zone import Zone
from tests.path.storm import place

ZONE = """
    office.example       MX 10 mail.office.example
    mail.office.example  A 127.0.0.2
"""
ANN = "ann@office.example"


async def refused(running: Running) -> None:
    """Return once the port is shut."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with Client(running.smtp_port):
                    await asyncio.sleep(0.05)
            except ConnectionRefusedError:
                return


async def test_ready_turns_first_and_sessions_go_on(tmp_path: Path) -> None:
    """While a session that was there goes on, /readyz says 503, /livez 200, and nobody new is let in; after
    drain_s it hears 421 and the process ends with 0."""
    async with place(tmp_path, smtp__drain_s="10.0") as at:
        running = at.backup
        async with Client(running.smtp_port) as client:
            await client.greet()
            running.send("solo", signal.SIGTERM)
            await refused(running)
            ready, alive = await running.page("solo", "readyz"), await running.page("solo", "livez")
            assert ready is not None
            assert alive is not None
            assert (ready.status_code, alive.status_code) == (503, 200)
            assert (await client.mail(ANN)).startswith("250 2.0.0")
            await client.talk("S: 421 4.3.2 mx1.backup.example Shutting down, try again or another host\nS.")
        assert await running.ended("solo") == 0


async def test_a_commit_under_way(tmp_path: Path) -> None:
    """The broker stops answering right after the final dot, then SIGTERM comes: the session is not cut, and
    when the log answers again it hears 250, then 421. The mail is in the queue."""
    async with Zone(ZONE) as zone, Cluster(1, quick=True) as cluster:
        running = Running(
            tmp_path,
            dns=zone.servers,
            dial_port=25,
            kafka=cluster.bootstrap,
            smtp__drain_data_s="0.0",
            timing__rcpt_deadline_s="0.2",
            timing__verdict_deadline_s="0.2",
        )
        running.names = ("ingest", "control")
        async with running:
            said = await running.ask("domain", "add", "office.example")
            assert said.code == 0, said.err
            async with Client(running.smtp_port) as client, Client(running.smtp_port) as idle:
                await client.greet()
                await idle.greet()
                await client.data(ANN)
                cluster.freeze(0)
                await client.send(b"hello\r\n.\r\n")
                with pytest.raises(TimeoutError):
                    await client.line(within=1)
                running.send("ingest", signal.SIGTERM)
                assert (await idle.reply()).startswith("421 4.3.2")
                with pytest.raises(TimeoutError):
                    await client.line(within=3)
                cluster.thaw(0)
                assert (await client.reply()).startswith("250 2.0.0")
                await client.talk("S: 421 4.3.2 ...\nS.")
            assert await running.ended("ingest") == 0
            assert len((await running.ask("queue", "list", "--json")).rows) == 1
