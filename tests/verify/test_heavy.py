"""The process pool: results, limits, dead processes, and no process left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from services.verify.heavy import Overrun, Pool
from tests.helpers.patience import PATIENCE_S


def busy(seconds: float) -> None:
    """Works without ever returning to the interpreter's caller."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def busy_until(path: Path) -> None:
    while not path.exists():
        pass


async def test_a_job_runs_elsewhere() -> None:
    """The job's result and its exception come back; it ran in another process."""
    pool = Pool()
    try:
        assert await pool.run(os.getpid) != os.getpid()
        with pytest.raises(ValueError, match="invalid literal"):
            await pool.run(int, "no number")
    finally:
        await pool.close()


async def test_a_job_that_takes_too_long_is_ended() -> None:
    """The limit ends the job, not only the waiting for it; the next job runs."""
    pool = Pool(limit_s=0.5)
    try:
        with pytest.raises(Overrun):
            await pool.run(busy, 60)
        assert await pool.run(max, 1, 2) == 2
    finally:
        await pool.close()


async def test_a_killed_process_costs_its_job_only() -> None:
    """The job's outcome is not known; the next one gets a new process."""
    pool = Pool()
    try:
        process = await pool.run(os.getpid)
        job = asyncio.ensure_future(pool.run(busy, 30))
        await asyncio.sleep(0)  # the job is on its way, or will be: the pool is broken either way
        os.kill(process, signal.SIGKILL)
        with pytest.raises(Overrun):
            await job
        assert await pool.run(max, 1, 2) == 2
    finally:
        await pool.close()


async def test_the_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    """While a job works, the event loop serves others."""
    pool = Pool()
    try:
        await pool.run(max, 1, 2)
        job = asyncio.ensure_future(pool.run(busy_until, tmp_path / "enough"))
        for _ in range(10):
            await asyncio.sleep(0.01)
            assert not job.done()
        (tmp_path / "enough").touch()
        await job
    finally:
        await pool.close()


PARENT = """
import asyncio, os, sys
from services.verify.heavy import Pool

async def main():
    print(await Pool().run(os.getpid), flush=True)
    sys.stdin.read()

if __name__ == "__main__":
    asyncio.run(main())
"""


def alive(process: psutil.Process) -> bool:
    """A zombie that nobody reaps is dead."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    """kill -9 of the service ends its pool too."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(root)},
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    until = time.monotonic() + PATIENCE_S
    while alive(child):
        assert time.monotonic() < until
        time.sleep(0.02)
