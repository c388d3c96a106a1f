"""/livez, /readyz and /metrics over real HTTP."""

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from libs.runtime.config import Endpoint
from libs.runtime.health import application, health
from libs.runtime.http import serving, tcp_socket, unix_socket
from libs.runtime.metrics import Metrics
from libs.runtime.run import CannotStart, Life
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S

LOOPBACK = Endpoint(address="127.0.0.1", port=0)


@asynccontextmanager
async def pages(*lives: Life, metrics: Metrics | None = None) -> AsyncIterator[httpx.AsyncClient]:
    listener = tcp_socket(LOOPBACK)
    port = listener.getsockname()[1]
    async with (
        serving(application(lives, metrics or Metrics()), listener),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


async def test_ready_when_all_services_are() -> None:
    """/readyz says 503 while one restores, 200 when all are ready, 503 again when one drains."""
    clock = Clock()
    one, two = Life("ingest", clock), Life("verify", clock)
    async with pages(one, two) as client:
        one.ready()
        assert (await client.get("/readyz")).status_code == 503
        two.ready()
        answer = await client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json()["services"]["verify"] == {"phase": "ready", "stalled_s": 0.0}


async def test_alive_while_there_is_progress() -> None:
    """/livez says 503 once a service that is ready made no progress for over 60 s, and 200 after the next."""
    clock = Clock()
    life = Life("verify", clock)
    async with pages(life) as client:
        life.ready()
        clock.advance(60)
        assert (await client.get("/livez")).status_code == 200
        clock.advance(0.5)
        answer = await client.get("/livez")
        assert answer.status_code == 503
        assert answer.json()["services"]["verify"]["stalled_s"] == 60.5
        life.progress()
        assert (await client.get("/livez")).status_code == 200


async def test_waiting_for_the_log_is_alive() -> None:
    """A process whose log is away at start waits for as long as that takes: alive, not ready."""
    clock = Clock()
    life = Life("ingest", clock)
    async with pages(life) as client:
        clock.advance(3600)
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503


async def test_metrics_are_those_of_the_process() -> None:
    """/metrics is the Prometheus text form of the process' own registry."""
    metrics = Metrics()
    metrics.quarantined.labels("queue").inc()
    async with pages(metrics=metrics) as client:
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'backupmx_quarantined_records_total{topic="queue"} 1.0' in answer.text


async def test_the_service() -> None:
    """It logs the port it picked, says what it uses, leaves signals alone, ends when it must drain."""
    life, metrics = Life("health", Clock()), Metrics()
    handler = signal.getsignal(signal.SIGTERM)
    with capture_logs() as lines:
        task = asyncio.create_task(health(LOOPBACK, [life], metrics, life))
        await asyncio.wait_for(life.is_ready.wait(), PATIENCE_S)
    assert signal.getsignal(signal.SIGTERM) is handler
    port = next(line["port"] for line in lines if line["event"] == "health is served")
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
    assert "backupmx_process_resident_memory_bytes" in answer.text
    life.must_drain.set()
    await asyncio.wait_for(task, PATIENCE_S)


async def test_a_port_that_is_taken_is_one_sentence() -> None:
    """The person reads which setting it is and why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        life = Life("health", Clock())
        with pytest.raises(CannotStart) as caught:
            await health(Endpoint(address="127.0.0.1", port=port), [life], Metrics(), life)
    assert str(caught.value) == f"health.listen: 127.0.0.1:{port} cannot be used: Address already in use"


async def test_a_unix_socket_is_for_our_user_alone(tmp_path: Path) -> None:
    """Mode 0600, a stale one is replaced, and it serves."""
    path = tmp_path / "control.sock"
    path.touch()
    listener = unix_socket(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600  # noqa: PTH116 what everybody sees
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with (
        serving(application([], Metrics()), listener),
        httpx.AsyncClient(transport=transport, base_url="http://control") as client,
    ):
        assert json.loads((await client.get("/readyz")).text) == {"ok": True, "services": {}}
