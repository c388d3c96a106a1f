"""The disk of the embedded log fills up: senders hear 452 or 451, nothing promised is lost."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.path.storm import place

ROOM = 300 * 2**20  # over the 1 GiB that the log keeps for its state


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory; what is not written takes no memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = f"size={2**30 + ROOM}"
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounting.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounting.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_a_full_disk_is_a_temporary_reply(tmp_path: Path, disk: Path) -> None:
    """Rules 1 and 13: no 5yz and no 250 while content does not fit; state fits; then all goes on."""
    async with place(tmp_path, state_directory=str(disk)) as at:
        accepted = 0

        async def reply() -> str:
            nonlocal accepted
            async with Client(at.backup.smtp_port) as client:
                await client.greet()
                code = (await client.mail("ann@office.example"))[:3]
                accepted += code == "250"
                return code

        async def until(*codes: str) -> None:
            """The log looks at its disk once a second."""
            deadline = time.monotonic() + 30
            while (code := await reply()) not in codes:
                assert code in ("250", "451", "452")
                assert time.monotonic() < deadline, f"still {code}"
                await asyncio.sleep(0.1)

        await until("250")
        await at.office.got(1)
        await at.office.down()
        await until("250")
        filler = disk / "filler"
        filler.write_bytes(bytes(ROOM))
        await until("451", "452")
        said = await at.backup.ask("domain", "add", "other.example")
        assert said.code == 0, said.err  # state is stored in the room that content may not take
        await at.office.up()
        await at.office.got(accepted)  # what waited is handed over, disk or no disk
        filler.unlink()
        await until("250")
        await at.office.got(accepted)
