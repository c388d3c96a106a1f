"""Rspamd at a primary that gets mail from us: who is the sender to it, and who may speak in our name.

Its configuration is the paste-ready one of docs/domain-owner.md, read from there.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.helpers.zone import Zone
from tests.real.daemon import Daemon
from tests.real.ports import free_port
from tests.real.room import Room, User
from tests.real.test_spamassassin import FORGED, GUIDE, MAIL, US, ZONE, handed_over

HOST = "mx1.backup.example"
# All public suffixes, and expressions for the fastest way to match them, take half a minute to make ready.
_OPTIONS = """
dns {{ nameserver = ["127.0.0.1:{port}:1"]; }}
disable_hyperscan = true;
url_tld = "$LOCAL_CONFDIR/local.d/suffixes.dat";
"""
FILE = re.compile(r"^# (\w+\.(?:conf|map)): .*\n", re.MULTILINE)


def paste_ready() -> dict[str, str]:
    """The files of the guide's block."""
    (block,) = re.findall(r"```rspamd\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    _, *parts = FILE.split(block)
    return dict(zip(parts[::2], parts[1::2], strict=True))


class Rspamd:
    """A running one, asked as a mail server asks it: about a message from `address`, whose name in DNS is
    `name`."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def scan(self, message: bytes, address: str, name: str) -> dict[str, Any]:
        session = {"IP": address, "Hostname": name, "Helo": name}
        envelope = {"From": "bob@sender.example", "Rcpt": "ann@office.example"}
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            said = await client.post(
                f"http://127.0.0.1:{self._port}/checkv2", content=message, headers=session | envelope
            )
        assert said.status_code == 200, said.text
        return dict(said.json())

    async def symbols(self, message: bytes, address: str, name: str) -> set[str]:
        return set((await self.scan(message, address, name))["symbols"])


@asynccontextmanager
async def rspamd(folder: Path, unpacked: Path, settings: dict[str, str]) -> AsyncIterator[Rspamd]:
    room = Room(folder, unpacked, [User("_rspamd", 7528)])
    port = free_port()
    local = room.etc / "rspamd" / "local.d"
    async with Zone(ZONE) as zone:
        files = {
            "options.inc": _OPTIONS.format(port=zone.port),
            "suffixes.dat": "example\ncom\n",
            "logging.inc": 'type = "console";\n',
            "worker-normal.inc": f'bind_socket = "127.0.0.1:{port}";\ncount = 1;\n',
            "worker-controller.inc": "count = 0;\n",
            "worker-proxy.inc": "count = 0;\n",
            "rbl.conf": "enabled = false;\n",
            "fuzzy_check.conf": "enabled = false;\n",
        }
        for name, text in (files | settings).items():
            (local / name).write_text(text)
        for made in (room.var / "lib" / "rspamd", room.var / "log" / "rspamd"):
            made.mkdir(parents=True, exist_ok=True)
        async with Daemon(
            room, "rspamd", "-f", "-i", "-u", "root", "-g", "root", up="starting normal process"
        ):
            yield Rspamd(port)


async def test_it_looks_at_the_real_sender(tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    """With the settings of the guide SPF and DMARC are those of the client that spoke to us; without them
    they would be those of our own address, which is no sender of anybody."""
    program = unpacked("rspamd")
    message = await handed_over(tmp_path / "backup")
    async with rspamd(tmp_path / "guided", program, paste_ready()) as filter_:
        found = await filter_.symbols(message, US, HOST)
        assert {"BACKUPMX", "R_SPF_ALLOW", "R_DKIM_ALLOW", "DMARC_POLICY_ALLOW"} <= found
        assert "BACKUPMX_FORGED" not in found
    async with rspamd(tmp_path / "plain", program, {}) as filter_:
        found = await filter_.symbols(message, US, HOST)
        assert "R_SPF_FAIL" in found
        assert not {"R_SPF_ALLOW", "BACKUPMX"} & found


async def test_it_believes_nobody_else_in_our_name(tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    """A mail that came to the primary directly, with results and a trace that claim to be ours: seen as that,
    and nothing of them is left in the mail."""
    trace = f"Received: from mail.sender.example ([192.0.2.77]) by {HOST} with ESMTP id 4X1; Fri, 15 Jan 2027"
    message = trace.encode() + b" 08:00:00 +0000\r\n" + FORGED + MAIL
    async with rspamd(tmp_path / "room", unpacked("rspamd"), paste_ready()) as filter_:
        said = await filter_.scan(message, "203.0.113.9", "evil.example")
    assert {"R_SPF_FAIL", "BACKUPMX_FORGED"} <= set(said["symbols"])
    assert "BACKUPMX" not in said["symbols"]
    assert said["milter"]["remove_headers"]["Authentication-Results"] == 0  # all of them
