"""Where a group stands in a topic, asked until the log answers."""

import asyncio

from libs.log.contract import BEGIN, Claim, Log, Unavailable


async def standing(log: Log, claim: Claim, topic: str, again_s: float) -> int:
    """The offset with which the group goes on, BEGIN where it has not begun; asked again after `again_s`
    seconds where the log is away. Raises NotOwner."""
    while True:
        try:
            position = await log.commit(claim, topic)
        except Unavailable:
            await asyncio.sleep(again_s)
        else:
            return BEGIN if position is None else position
