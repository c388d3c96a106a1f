"""Nothing of a room outlives who opened it."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.helpers.patience import until

ROOT = Path(__file__).parents[2]

_OPENS = """
import asyncio, sys
from pathlib import Path
from tests.real.postfix import Postfix

async def main():
    async with Postfix(Path(sys.argv[1]), Path(sys.argv[2]), ["ann@real.example"]):
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_killed(tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    """kill -9 to a test: Postfix, which runs as a user of its own by then, is gone with it."""
    opener = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OPENS, str(tmp_path / "room"), str(unpacked("postfix")), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert opener.stdout is not None
    try:
        assert await opener.stdout.readline() == b"up\n"
        inside = psutil.Process(opener.pid).children(recursive=True)
        assert any(each.name() == "master" for each in inside)
        assert any(each.name() == "qmgr" for each in inside)
    finally:
        opener.send_signal(signal.SIGKILL)
        await opener.wait()
    await until(lambda: not any(alive(each) for each in inside))


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
