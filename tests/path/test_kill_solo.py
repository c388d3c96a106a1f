"""solo survives kill -9 at random moments while 2,000 mails are sent: lost 0, wrongly refused 0."""

from pathlib import Path

import pytest

from tests.path.storm import place, storm


@pytest.mark.timeout(400)
async def test_solo_survives_kill_9(tmp_path: Path) -> None:
    """A mail that got 250 is never lost: what the dead process had promised, the next one hands over."""
    async with place(tmp_path) as at:
        kill = at.killing("solo")

        async def outage() -> None:
            await at.office.down()
            await kill()
            await at.office.up()

        found = await storm(at, [kill, kill, outage, kill, kill], seed=1)
        assert not found.lost
        assert not found.altered
        assert await at.backup.stop("solo") == 0
