"""`top`: the relay domains on a whole screen, live."""

import asyncio
import os
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from libs.runtime.config import Config
from libs.runtime.terminal import fail
from services.control.caller import call, calling
from services.control.terminal import DEFAULT_CONFIG, ConfigFile, configured, run
from services.control.top import SORTS, screen


def top(
    every: Annotated[float, typer.Option(help="Seconds from one look to the next.", min=0.2)] = 2.0,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """What happens now, on a whole screen: who is away, since when, what waits, mail in and out.

    Example: backupmx top --every 5"""
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        fail("top needs a terminal; for programs there is: backupmx domain list --json", 2)
    run(_live(configured(config), every))


async def _live(config: Config, every: float) -> None:
    """Until q is pressed. Raises Failed."""
    console, sort = Console(), "w"
    async with calling(config, running=True) as client:
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                rows = await call(client, "GET", "/top", None, None)
                until = time.monotonic() + every
                while (left_s := until - time.monotonic()) > 0:
                    live.update(screen(rows, sort, console.size.height, time.time()), refresh=True)
                    try:
                        async with asyncio.timeout(left_s):
                            key = await pressed.get()
                    except TimeoutError:
                        break
                    if key == "q":
                        return
                    sort = key if key in SORTS else sort


@contextmanager
def _keys() -> Iterator[asyncio.Queue[str]]:
    """Keys as they are pressed, without Enter; the terminal is as it was afterwards."""
    pressed: asyncio.Queue[str] = asyncio.Queue()
    fd, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)

    def read() -> None:
        for key in os.read(fd, 64).decode("utf-8", "replace") or "q":
            pressed.put_nowait(key)

    loop.add_reader(fd, read)
    try:
        yield pressed
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
