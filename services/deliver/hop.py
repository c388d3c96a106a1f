"""One next hop of a partition: what is known of it, and what is under way there."""

import asyncio

from services.deliver.brake import Brake
from services.deliver.destination import Destination

BLIP_S = 600.0  # a primary that was up for less is in one outage still


class Hop:
    """`primary`: of a relay domain of ours (published, probed); `carriers`: its connections, `idle` of them
    wait for mail; `slow_out`: deferred mails being tried; `slow`: it was late to greet, and greeted;
    `next_mail`: when its rate allows the next one (monotonic seconds); `waited`, `handed`, `era`: as in
    PrimaryState."""

    def __init__(self, name: str, destination: Destination, brake: Brake, *, primary: bool) -> None:
        self.name, self.destination, self.brake, self.primary = name, destination, brake, primary
        self.carriers: set[asyncio.Task[None]] = set()
        self.probe: asyncio.Task[None] | None = None
        self.idle = 0
        self.slow_out = 0
        self.slow = False
        self.next_mail = float("-inf")
        self.more = asyncio.Event()
        self.mx: tuple[str, ...] = ()
        self.mx_seen = 0.0
        self.waited = self.handed = self.era = 0

    def back(self, before: Destination, waiting: int) -> None:
        """The outage of `before` ended; so many mails waited for that."""
        if before.since - before.outage_ended >= BLIP_S:
            self.handed = 0
        self.waited = self.handed + waiting
