"""verify: is the sender honest, is the recipient real? One coroutine, top to bottom."""

import asyncio
from pathlib import Path

from libs.runtime.deps import Deps
from libs.runtime.run import Life
from services.verify.authenticate import Authenticator
from services.verify.content import Contents
from services.verify.heavy import Pool
from services.verify.spill import Spill

_DNS_SHARE = 0.75  # of the verdict's deadline: a verdict with temperror must still arrive in time


async def verify(deps: Deps, life: Life) -> None:
    """Until drained: own partition numbers in group `verify`, answer each message on `content`."""
    deadline_s = deps.config.timing.verdict_deadline_s
    hosts = deps.config.installation.hosts
    pool, spill = Pool(), Spill(_directory(deps.config.state_directory))
    authenticator = Authenticator(
        deps.dns, deps.clock, pool, authserv_id=hosts[0], hosts=hosts, within_s=_DNS_SHARE * deadline_s
    )
    contents = Contents(deps.log, deps.clock, deps.metrics, authenticator, spill, deadline_s=deadline_s)
    try:
        async with deps.log.own("verify", contents):
            reading = asyncio.create_task(contents.run(life.progress))
            draining = asyncio.create_task(life.must_drain.wait())
            life.ready()
            await asyncio.wait({reading, draining}, return_when=asyncio.FIRST_COMPLETED)
            draining.cancel()
            reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled():
                reading.result()  # it ended by itself: its error is ours
            await contents.finish()
    finally:
        await pool.close()
        spill.close()


def _directory(state: Path) -> Path | None:
    return state if state.is_dir() else None
