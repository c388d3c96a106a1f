"""Tells the senders of mail that has been here for a day, once, under the rules of every DSN (rule 12)."""

import asyncio

from libs.mail.records import State
from services.deliver.carrier import Carriers
from services.deliver.delays import AFTER_S
from services.deliver.partition import Partition
from services.deliver.settlement import Settlement
from services.deliver.waiting import Place

MOST = 1000  # mails in a round
AT_ONCE = 50
LATER_S = 3600.0  # until one that cannot be told now is looked at again


class Late:
    """Of one partition."""

    def __init__(self, partition: Partition, settlement: Settlement, carriers: Carriers) -> None:
        self._partition, self._settlement, self._carriers = partition, settlement, carriers

    async def round(self) -> None:
        """Tell of those that are due. Raises NotOwner."""
        part = self._partition
        ids = part.delays.due(part.clock.wall(), MOST)
        for at in range(0, len(ids), AT_ONCE):
            telling = [self._tell(id_) for id_ in ids[at : at + AT_ONCE]]
            for failed in await asyncio.gather(*telling, return_exceptions=True):
                if failed is not None:
                    raise failed

    async def _tell(self, id_: str) -> None:
        part = self._partition
        waiting = part.index.get(id_)
        if waiting is None or waiting.delay_told or waiting.state in (State.PARKED, State.CONTENT_LOST):
            return
        if part.until(waiting.domain, waiting.arrived) <= part.clock.wall():
            return  # it expires soon, and that is told
        if waiting.state is State.HELD:
            part.delays.add(id_, part.clock.wall() + LATER_S)  # a person looks at it, or it is a loop
            return
        if part.index.place(id_) is Place.OUT:
            part.delays.add(id_, waiting.arrived + AFTER_S)  # being attempted: looked at in the next round
        elif not await self._carriers.hold(id_, lambda _, job: self._settlement.delay(job)):
            part.delays.add(id_, part.clock.wall() + LATER_S)
