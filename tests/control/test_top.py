"""`top`: what it shows, and that it does so on a real terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from libs.mail.event import EventType
from services.control.rates import Rate, Rates
from services.control.top import SORTS, screen, summary
from tests.helpers.client import Client
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
    sender.example       TXT "v=spf1 ip4:127.0.0.1 -all"
"""


def row(domain: str, **more: Any) -> dict[str, Any]:
    plain = {"domain": domain, "state": "active", "primary": "up", "primary_since": 0.0, "waiting": 0}
    return plain | {"oldest": 0.0, "taken": 0, "handed_over": 0} | more


ROWS = [
    row("a.example", taken=9),
    row("b.example", waiting=7, primary="down", primary_since=40.0, oldest=50.0),
    row("c.example", waiting=3, oldest=10.0),
]


def shown(sort: str, height: int = 24) -> str:
    out = StringIO()
    Console(file=out, width=80, height=height).print(screen(ROWS, sort, height, 100.0))
    return out.getvalue()


@pytest.mark.parametrize(
    ("sort", "order"), [("w", "bca"), ("t", "abc"), ("o", "cba"), ("p", "bac"), ("d", "abc")], ids=str
)
def test_the_order(sort: str, order: str) -> None:
    """What is worth a look stands above."""
    names = [line[0] for line in shown(sort).splitlines() if line[1:9] == ".example"]
    assert "".join(names) == order
    assert set(SORTS) == set("wtopd")


def test_what_a_line_says() -> None:
    """Since when it is down, what waits and since when; and all of it together."""
    line = next(each for each in shown("w").splitlines() if each.startswith("b.example"))
    assert line.split() == ["b.example", "active", "down", "1m", "7", "50s", "0", "0"]
    assert summary(ROWS) == "3 domains, 1 away; 10 mails wait; in a minute 9 in and 0 out"


def test_a_small_screen() -> None:
    """As many as there is room for, and how many are not shown."""
    lines = shown("d", height=6).splitlines()
    assert len(lines) <= 6
    assert "2 more" in lines[-1]


def test_rates_are_of_the_last_minute() -> None:
    """Of each domain by itself."""
    rates = Rates()
    taken, handed = EventType.RECEPTION.value, EventType.DELIVERY.value
    for at, type_ in ((0, taken), (30, taken), (55, handed)):
        rates.note("a", type_, at)
    rates.note("b", taken, 55)
    assert rates.of("a", 59.0) == Rate(2, 1)
    rates.note("a", handed, 65)
    assert rates.of("a", 69.0) == Rate(1, 2)
    assert rates.of("b", 200.0) == Rate(0, 0)


@contextmanager
def terminal(*words: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The command on a terminal of 80 columns and 24 lines; our end of it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    program = [sys.executable, "-c", "from services.main import main; main()"]
    process = subprocess.Popen(
        [*program, *words], stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


async def test_on_a_terminal(tmp_path: Path) -> None:
    """It shows what is going on while it goes on, sorts when a key is pressed, and ends with q."""
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={"ann@office.example"}) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port) as running,
    ):
        await running.ask("domain", "add", "office.example")
        seen = bytearray()
        with terminal("top", "--every", "0.3", "--config", str(running.config)) as (ours, process):

            def shows(words: bytes) -> bool:
                with suppress(BlockingIOError):
                    seen.extend(os.read(ours, 65_536))
                return words in seen

            await until(lambda: shows(b"1 domain, 0 away; 0 mails wait"), story=seen.decode)
            async with Client(running.smtp_port) as client:
                await client.greet()
                assert (await client.mail("ann@office.example")).startswith("250")
            await until(lambda: shows(b"in a minute 1 in and 1 out"), story=seen.decode)
            os.write(ours, b"dq")
            await until(lambda: process.poll() is not None)
            assert process.returncode == 0
            assert b"Traceback" not in seen


async def test_without_a_terminal(tmp_path: Path) -> None:
    """One sentence that names what programs use."""
    async with Running(tmp_path, dns=[("127.0.0.1", 1)], dial_port=1) as running:
        said = await running.ask("top")
        wanted = "backupmx: top needs a terminal; for programs there is: backupmx domain list --json\n"
        assert said == (2, "", wanted)
