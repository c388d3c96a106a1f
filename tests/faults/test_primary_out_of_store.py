"""The primary is out of store: it defers everybody, its mail waits, and goes on at the first 250."""

from pathlib import Path

import pytest

from tests.faults.scene import scene


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_insufficient_system_storage(tmp_path: Path, stage: str) -> None:
    """RFC 5321 section 4.2.3: 452 speaks of the server. Nobody flushes: it is found out by itself."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        at.office.say(stage, "452 4.3.1 Insufficient system storage")
        during = [f"during-{number}" for number in range(3)]
        for subject in during:
            assert (await at.mail(subject=subject)).startswith("250 2.0.0")
        await at.health("deferring")
        assert len(await at.queue()) == len(during)
        at.office.say(stage, "")
        await at.office.got(4)
        await at.delivered(4)
        assert sorted(at.subjects()) == ["before", *during]
