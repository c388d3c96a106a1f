"""A content that comes in drops costs what its octets cost, not an object each."""

import tracemalloc
from pathlib import Path

import pytest

from libs.mail import replies
from libs.mail.records import Trace
from services.ingest.content import Contents
from services.ingest.effects import Interrupted
from services.ingest.patience import Breakdowns
from services.ingest.verdicts import Verdicts
from tests.ingest.house import House

DROPS = 40_000


class Drip:
    """A wire that brings `drop` DROPS times and then is gone. `held`: octets that all of it takes by then."""

    def __init__(self, drop: bytes) -> None:
        self.buffer = bytearray()
        self.held = 0
        self._drop, self._left = drop, DROPS

    async def more(self, within: float) -> Interrupted | None:
        assert within > 0
        if not self._left:
            self.held = tracemalloc.get_traced_memory()[0]
            raise ConnectionResetError
        self._left -= 1
        self.buffer += self._drop
        return None


@pytest.mark.parametrize("drop", [b"ab", b"\r\n", b"\n"])
async def test_a_drip_feed_stays_small(tmp_path: Path, drop: bytes) -> None:
    """Before the first chunk is full twice its octets are in memory at most, however small the drops."""
    async with House(tmp_path) as house:
        contents = Contents(house.deps, Verdicts(house.deps), Breakdowns())
        wire = Drip(drop)
        trace = Trace(0, "office.example", "192.0.2.1", "x", "", smtputf8=False)
        tracemalloc.start()
        try:
            with pytest.raises(ConnectionResetError):
                await contents.receive(wire, trace, (2**20, replies.TOO_LARGE))
        finally:
            tracemalloc.stop()
        assert wire.held < 2 * 2 * DROPS + 300_000  # the header is held, too, and the log lives meanwhile
        assert contents.budget.used == 0
