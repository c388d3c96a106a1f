"""Reading from Kafka: partitions followed for ever.

Shell: sockets and tasks. It sends fetch requests of its own instead of using aiokafka's consumer, which does
not say when it is silent whether the broker answered: that is what freshness needs to know.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from aiokafka import errors

from libs.log.contract import BEGIN, END, Batch, Misconfigured, Unavailable
from libs.log.crowd import Crowd
from libs.log.kafka_fetch import Fetched, fetch_request, fetched
from libs.log.kafka_wire import EARLIEST, LATEST, RETRY_S, Wire

WAIT_MS = 900  # how long a leader waits for new records; an empty answer after that proves freshness
# A follower that has just read to the end lets records gather so long before it asks again: each answer costs
# broker and follower as much as the records of many mails. Somebody waits for those of the first two, so that
# they gather in a crowd only.
CROWD_S = {"content": 0.006, "verdicts": 0.006}
REST_S = {"queue": 0.05, "events": 0.25}
EACH, TOTAL = 2**20, 8 * 2**20  # octets of a partition, and of a broker, per fetch
OUT_OF_RANGE = errors.OffsetOutOfRangeError.errno


async def follow(wire: Wire, topic: str, name: str, starts: Mapping[int, int]) -> AsyncGenerator[Batch, None]:
    """What the contract says of `follow`. Closes `wire` at the end."""
    follower = Follower(wire, topic, name, starts)
    try:
        while True:
            for batch in await follower.turn():
                yield batch
    finally:
        await follower.close()


class Follower:
    """One long poll under way for each leader. `turn` waits for an answer, asks again, then gives what
    came."""

    def __init__(self, wire: Wire, topic: str, name: str, starts: Mapping[int, int]) -> None:
        self._wire, self._topic, self._name = wire, topic, name
        self._unresolved = dict(starts)
        self._positions: dict[int, int] = {}
        self._asking: dict[asyncio.Task[dict[int, Fetched]], dict[int, int]] = {}
        self._gaps: set[int] = set()
        self._rest_s = 0.0
        self._crowd = Crowd()

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self._wire.close()

    async def turn(self) -> list[Batch]:
        """Wait until a leader has answered. [] after trouble: nothing is known, the next turn tries again."""
        try:
            await self._resolve()
            await self._ask()
            if not self._asking:
                await asyncio.sleep(RETRY_S)
                return []
            done, _ = await asyncio.wait(self._asking, return_when=asyncio.FIRST_COMPLETED)
        except (Unavailable, Misconfigured):  # a topic that is missing may be made
            await asyncio.sleep(RETRY_S)
            return []
        batches: list[Batch] = []
        trouble = False
        for task in done:
            asked = self._asking.pop(task)
            try:
                answer = task.result()
            except Unavailable:
                trouble = True
                continue
            for number, part in answer.items():
                trouble |= bool(part.code)
                batches += self._took(number, asked[number], part)
        self._rest_s = self._rest(batches)
        if trouble:
            await asyncio.sleep(RETRY_S)
            await self._wire.refresh()
        else:
            await self._ask()
        return batches

    def _rest(self, batches: list[Batch]) -> float:
        """For how many seconds not to ask again."""
        now, news = asyncio.get_running_loop().time(), sum(len(batch.records) for batch in batches)
        self._crowd.came(now, news)
        if not news or any(batch.position < batch.end for batch in batches):
            return 0.0
        return REST_S.get(self._name, CROWD_S.get(self._name, 0.0) if self._crowd.gathers(now) else 0.0)

    def _took(self, number: int, asked: int, part: Fetched) -> list[Batch]:
        if part.code == OUT_OF_RANGE:
            self._gaps.add(number)
            del self._positions[number]
            self._unresolved[number] = BEGIN
            return []
        if part.code:
            return []
        self._positions[number] = part.position
        gap = number in self._gaps
        self._gaps.discard(number)
        return [Batch(number, part.records, part.position, part.end, gap)]

    async def _resolve(self) -> None:
        """Turn BEGIN and END into offsets."""
        for number, start in list(self._unresolved.items()):
            at = {BEGIN: EARLIEST, END: LATEST}.get(start)
            offset = start if at is None else await self._wire.offset(self._topic, number, at)
            self._positions[number] = offset
            del self._unresolved[number]

    async def _ask(self) -> None:
        """Ask each leader for those of its partitions that nobody has been asked for."""
        busy = {number for asked in self._asking.values() for number in asked}
        leaders = await self._wire.leaders(self._topic, self._positions.keys() - busy)
        wanted: dict[int, dict[int, int]] = {}
        for number, node in sorted(leaders.items()):
            wanted.setdefault(node, {})[number] = self._positions[number]
        for node, offsets in wanted.items():
            task = asyncio.get_running_loop().create_task(self._fetch(node, offsets, self._rest_s))
            self._asking[task] = offsets

    async def _fetch(self, node: int, offsets: dict[int, int], rest_s: float) -> dict[int, Fetched]:
        if rest_s:
            await asyncio.sleep(rest_s)
        request: Any = fetch_request(self._topic, offsets, wait_ms=WAIT_MS, each=EACH, total=TOTAL)
        response = await self._wire.ask(node, request)
        return fetched(response, self._topic, self._name, offsets)
