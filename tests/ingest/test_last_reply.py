"""The last reply reaches a client that goes on talking: octets to a closed socket would take it away."""

import asyncio
import socket
from pathlib import Path

from tests.helpers.patience import until
from tests.ingest.house import House


async def test_an_error_too_many_at_quit(tmp_path: Path) -> None:
    """A QUIT with an argument is an error like any other; the 421 that it may bring is read by a client that
    has sent more behind it."""
    loop = asyncio.get_running_loop()
    async with House(tmp_path, smtp={"max_errors": 1}) as house:
        await house.install()
        await house.start()
        with socket.create_connection(("127.0.0.1", house.port)) as client:
            client.setblocking(False)
            assert (await loop.sock_recv(client, 1000)).startswith(b"220 ")
            await loop.sock_sendall(client, b"QUIT x\r\n")
            await until(lambda: said(house, "4xx") == 1)
            await loop.sock_sendall(client, b"NOOP\r\n")
            await loop.sock_sendall(client, b"NOOP\r\n")
            assert (await loop.sock_recv(client, 1000)).startswith(b"421 4.7.0 ")


async def test_more_behind_quit(tmp_path: Path) -> None:
    """Who goes on talking behind a good QUIT reads all that was said before, the 250 of a mail among it."""
    loop = asyncio.get_running_loop()
    async with House(tmp_path) as house:
        await house.install()
        await house.start()
        with socket.create_connection(("127.0.0.1", house.port)) as client:
            client.setblocking(False)
            assert (await loop.sock_recv(client, 1000)).startswith(b"220 ")
            await loop.sock_sendall(client, b"NOOP\r\nQUIT\r\n")
            await until(lambda: said(house, "2xx") == 1)
            await loop.sock_sendall(client, b"NOOP\r\n")
            await loop.sock_sendall(client, b"NOOP\r\n")
            heard = bytearray()
            while octets := await loop.sock_recv(client, 1000):
                heard += octets
            assert [line[:3] for line in heard.splitlines()] == [b"250", b"221"]


def said(house: House, kind: str) -> float | None:
    """Replies of this class to QUIT."""
    labels = {"command": "QUIT", "class": kind}
    return house.metrics.registry.get_sample_value("backupmx_replies_total", labels)
