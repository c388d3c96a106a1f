"""Content that comes slowly: who is slow is the client, never our log."""

from pathlib import Path

from libs.log.contract import Stored
from libs.mail import replies
from libs.mail.records import Trace
from services.ingest.content import Contents
from services.ingest.limits import Breakdowns
from services.ingest.session import ContentEnd, Interrupted
from services.ingest.verdicts import Verdicts
from tests.helpers.clock import Clock
from tests.ingest.house import HOST, House

TRACE = Trace(0, "office.example", "192.0.2.7", "client.example", "eve@sender.example")


class Drops:
    """A client that sends `each` octets every `gap_s` seconds, and its final dot after `most` of them."""

    def __init__(self, clock: Clock, each: bytes, gap_s: float, most: int) -> None:
        self.buffer = bytearray()
        self.times = 0
        self._clock, self._each, self._gap_s, self._most = clock, each, gap_s, most

    async def more(self, within: float) -> Interrupted | None:
        if self._gap_s > within:
            self._clock.advance(within)
            return Interrupted.TIMEOUT
        self._clock.advance(self._gap_s)
        self.times += 1
        self.buffer += self._each if self.times < self._most else b"\r\n.\r\n"
        return None


async def received(house: House, wire: Drops) -> ContentEnd:
    contents = Contents(house.deps, Verdicts(house.deps), Breakdowns())
    return await contents.receive(wire, TRACE, 2**20, house.config.smtp.min_data_rate)


async def test_a_drip_feed_ends(tmp_path: Path) -> None:
    """An octet a second for ever is over after 300 s, and the little that those octets gave."""
    clock = Clock()
    async with House(tmp_path, clock=clock) as house:
        wire = Drops(clock, b"x", 1.0, 10**9)
        assert await received(house, wire) == ContentEnd(None, replies.too_slow(HOST), close=True)
        assert wire.times == 300


async def test_a_slow_client_that_keeps_the_rate_is_served(tmp_path: Path) -> None:
    """1 kB every 2 s for half an hour, with pauses below the grace: all of it arrives."""
    clock = Clock()
    async with House(tmp_path, clock=clock) as house:
        end = await received(house, Drops(clock, b"x" * 1000, 2.0, 900))
        assert end.content is not None
        assert end.content.ref.size == 899 * 1000 + 2


async def test_a_slow_log_is_not_the_clients_fault(tmp_path: Path) -> None:
    """While our log takes minutes for each chunk the client has to wait, and is not told that it is slow."""
    clock = Clock()
    async with House(tmp_path, clock=clock) as house:
        append = house.log.append

        async def slowly(*what: object, **how: object) -> Stored:
            stored = await append(*what, **how)  # type: ignore[arg-type]
            if what[0] == "content":
                clock.advance(400.0)
            return stored

        house.log.append = slowly  # type: ignore[method-assign]
        end = await received(house, Drops(clock, b"x" * 64_000, 0.1, 17))
        assert end.content is not None
        assert len(end.content.ref.offsets) == 2
