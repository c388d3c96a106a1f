"""Several listeners at once, on a whole process."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.helpers.running import Running
from tests.helpers.zone import Zone


def held(address: str, family: socket.AddressFamily) -> tuple[socket.socket, int]:
    """A port that is ours while the socket is open; ingest binds it, too."""
    holder = socket.socket(family)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family is socket.AF_INET6:
        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    holder.bind((address, 0))
    return holder, holder.getsockname()[1]


async def test_all_doors_of_one_process(tmp_path: Path) -> None:
    """IPv4, IPv6 and a port behind a proxy are served by one process; [::] takes IPv6 alone, so that the same
    port of IPv4 is a door of its own."""
    holders = [held("::", socket.AF_INET6), held("127.0.0.1", socket.AF_INET)]
    (_, six), (_, proxied) = holders
    async with Zone("") as zone:
        running = Running(
            tmp_path,
            dns=zone.servers,
            dial_port=25,
            activation="dns",
            smtp__proxy_listen=json.dumps([f"127.0.0.1:{proxied}"]),
            smtp__proxy_networks='["127.0.0.0/8"]',
        )
        both = [f"127.0.0.1:{running.smtp_port}", f"[::]:{six}"]
        running.environment["BACKUPMX_SMTP__LISTEN"] = json.dumps(both)
        try:
            async with running:
                async with Client(running.smtp_port) as four:
                    assert (await four.reply()).startswith("220 ")
                async with Client(six, host="::1") as client:
                    assert (await client.reply()).startswith("220 ")
                async with Client(proxied, early=b"PROXY TCP6 2001:db8::7 ::1 4711 25\r\n") as client:
                    assert (await client.reply()).startswith("220 ")
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", six)
                lines = [line for line in running.lines("solo") if line.get("event") == "listening"]
                assert [(line["address"], line["port"], line["proxied"]) for line in lines] == [
                    ("127.0.0.1", running.smtp_port, False), ("::", six, False), ("127.0.0.1", proxied, True)
                ]  # fmt: skip
        finally:
            for holder, _ in holders:
                holder.close()


@pytest.mark.parametrize(
    ("settings", "code", "sentence"),
    [
        (
            {"smtp__listen": '["127.0.0.1:0", "[2001:db8::25]:25"]'},
            1,
            "smtp.listen: [2001:db8::25]:25 cannot be used: Cannot assign requested address",
        ),
        (
            {"smtp__proxy_listen": '["192.0.2.25:26"]', "smtp__proxy_networks": '["192.0.2.0/24"]'},
            1,
            "smtp.proxy_listen: 192.0.2.25:26 cannot be used: Cannot assign requested address",
        ),
        (
            {"smtp__listen": '["::1:25"]'},
            2,
            "environment variable BACKUPMX_SMTP__LISTEN: '::1:25' is not of the form address:port, "
            "such as 127.0.0.1:25 or [::1]:25",
        ),
        (
            {"smtp__listen": '["127.0.0.1:25", "127.0.0.1:25"]'},
            2,
            "environment variable BACKUPMX_SMTP__LISTEN: 127.0.0.1:25 is named twice in smtp.listen and "
            "smtp.proxy_listen",
        ),
    ],
)
async def test_a_door_that_cannot_be_had(
    tmp_path: Path, settings: dict[str, str], code: int, sentence: str
) -> None:
    """What is written wrongly ends with 2 before anything starts, what this machine does not have with 1."""
    running = Running(tmp_path, dns=[("127.0.0.1", 53)], dial_port=25, activation="dns", **settings)
    try:
        said = await running.ask("solo")
    finally:
        await running.close()
    assert (said.code, said.err) == (code, f"backupmx: {sentence}\n")
