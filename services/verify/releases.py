"""Requests to end a callout brake: read from `requests` under each claim, applied once."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import structlog

from libs.log.contract import Claim, NotOwner, Record, Unavailable
from libs.log.standing import standing
from libs.mail.codec import Undecodable, decode_request
from libs.mail.records import Unbrake
from libs.runtime.deps import Deps

AGAIN_S = 1.0

log = structlog.get_logger()


class Releases:
    """`apply` is called with each request under a claim that is held; it returns at once."""

    def __init__(self, deps: Deps, apply: Callable[[Claim, Unbrake], None]) -> None:
        self._deps, self._apply = deps, apply
        self._following: dict[int, tuple[Claim, asyncio.Task[None]]] = {}
        self._ended: set[asyncio.Task[None]] = set()

    def gained(self, claim: Claim) -> None:
        self._following[claim.partition] = claim, asyncio.create_task(self._follow(claim))

    def lost(self, claim: Claim) -> None:
        if claim.partition in self._following and self._following[claim.partition][0] is claim:
            self._end(self._following.pop(claim.partition)[1])

    async def close(self) -> None:
        while self._following:
            self._end(self._following.popitem()[1][1])
        if self._ended:
            await asyncio.wait(self._ended)

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._ended.add(task)
        task.add_done_callback(self._ended.discard)

    async def _follow(self, claim: Claim) -> None:
        try:
            position = await standing(self._deps.log, claim, "requests", AGAIN_S)
        except NotOwner:
            return
        async with aclosing(self._deps.log.follow("requests", {claim.partition: position})) as batches:
            async for batch in batches:
                if not claim.held():
                    return
                for record in batch.records:
                    self._take(claim, record)
                if batch.records:
                    await self._store(claim, batch.position)

    async def _store(self, claim: Claim, position: int) -> None:
        try:
            await self._deps.log.commit(claim, "requests", position)
        except (NotOwner, Unavailable) as error:  # the next batch stores it; a release twice does no harm
            log.warning("the position in requests is not stored", error=str(error))

    def _take(self, claim: Claim, record: Record) -> None:
        if record.value is None:
            return
        try:
            request = decode_request(record.value)
        except Undecodable:
            self._deps.quarantined(record)
            return
        if isinstance(request, Unbrake):
            self._apply(claim, request)
