"""kill -9 at each step of telling a sender that his mail waits: he hears of it once, and it waits on."""

from pathlib import Path

import pytest

from tests.faults.scene import scene
from tests.faults.test_killed_in_a_notice import DIES, messages

# Its clocks are ahead, and it looks at what waits all the time.
AHEAD = """
import time
import services.deliver.upkeep
from libs.runtime.clock import SystemClock
SystemClock.wall = staticmethod(lambda: time.time() + {hours} * 3600)
services.deliver.upkeep.ROUND_S = 0.2
"""


def ahead(hours: float) -> str:
    return AHEAD.replace("{hours}", str(hours))


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_killed_while_a_delay_is_told(tmp_path: Path, step: int) -> None:
    """deliver's own writes: the notice's content, its record, the state that remembers it."""
    async with scene(tmp_path, timing__probe_late_s="0.5") as at:
        await at.office.down()
        assert (await at.mail(subject="late")).startswith("250 2.0.0")
        await at.health("down")
        assert await at.backup.stop("solo") == 0
        # A start over a day after the last record would be a clock that jumped (rule 10).
        await at.backup.start("solo", first=ahead(20))
        await at.backup.ready("solo")
        await at.backup.until(lambda: at.backup.lines("solo")[-1:])
        assert await at.backup.stop("solo") == 0
        await at.backup.start("solo", first=ahead(24.5) + DIES.replace("{step}", str(step)))
        assert await at.backup.ended("solo") == -9
        await at.backup.start("solo", first=ahead(24.5))
        await at.backup.ready("solo")
        await at.sender.got(1)
        assert len(await at.queue()) == 1
        await at.office.up()
        await at.emptied()
        assert at.subjects() == ["late"]
        assert len(set(messages(at))) == 1
        assert b"Action: delayed" in at.sender.received[0].content
