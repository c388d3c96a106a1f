"""What an idle session costs."""

import asyncio
import socket
from pathlib import Path

import psutil

from tests.helpers.patience import PATIENCE_S
from tests.helpers.running import Running
from tests.helpers.zone import Zone

SESSIONS, WARM = 1000, 50
MOST = 20_000  # octets of memory for each


async def test_a_thousand_idle_sessions(tmp_path: Path) -> None:
    """A thousand sessions that said EHLO and then nothing cost at most 20 kB each: senders keep them."""
    async with Zone("") as zone, Running(tmp_path, dns=zone.servers, dial_port=25) as running:
        process = psutil.Process(running.pid("solo"))
        open_: list[socket.socket] = []

        async def more(count: int) -> int:
            """So many sessions more; the memory of the process then."""
            open_.extend([await asyncio.to_thread(idle, running.smtp_port) for _ in range(count)])
            return int(process.memory_full_info().uss)

        try:
            before = await more(WARM)
            after = await more(SESSIONS)
            assert await running.metric("solo", "backupmx_sessions_open") == SESSIONS + WARM
        finally:
            for each in open_:
                each.close()
    assert (after - before) / SESSIONS < MOST


def idle(port: int) -> socket.socket:
    """A session that has said EHLO."""
    found = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    assert found.recv(1000).startswith(b"220 ")
    found.sendall(b"EHLO client.sender.example\r\n")
    assert found.recv(1000).startswith(b"250-")
    return found
