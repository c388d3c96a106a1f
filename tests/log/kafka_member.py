"""A group member in a process of its own, for tests that freeze or kill it: prints what it is told and sees.

Lines of JSON: {"at": monotonic seconds, "gained" | "lost": number}, and every 10 ms {"at", "held":
[numbers]}. CLOCK_MONOTONIC is the same for all processes of a machine.
"""

import asyncio
import json
import sys
import time

from libs.log.contract import Claim
from libs.log.kafka import KafkaLog
from libs.runtime.clock import SystemClock


def say(**words: object) -> None:
    print(json.dumps({"at": time.monotonic(), **words}), flush=True)


class Speaker:
    """An Owner that says everything."""

    def __init__(self) -> None:
        self.claims: dict[int, Claim] = {}

    def gained(self, claim: Claim) -> None:
        self.claims[claim.partition] = claim
        say(gained=claim.partition)

    def lost(self, claim: Claim) -> None:
        del self.claims[claim.partition]
        say(lost=claim.partition)


async def main(bootstrap: str, prefix: str, partitions: int, group: str) -> None:
    speaker = Speaker()
    log = KafkaLog(
        bootstrap.split(","), partitions=partitions, replication=1, clock=SystemClock(), prefix=prefix
    )
    await log.start()
    async with log.own(group, speaker):
        while True:
            say(held=[number for number, claim in speaker.claims.items() if claim.held()])
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
