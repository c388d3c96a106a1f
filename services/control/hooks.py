"""Posts notices to contacts that are URLs, again and again for a day, and writes down what became of it."""

import asyncio
import secrets
from typing import NamedTuple

import structlog

from libs.log.contract import LogError
from libs.mail.event import Event, EventType
from libs.mail.notice import notice_id
from libs.mail.records import Notify, Posted
from libs.mail.settings import DomainSettings, complete
from libs.runtime.deps import Deps
from services.control import webhook
from services.control.domains import Refused
from services.control.poster import Poster
from services.control.register import Register
from services.control.told import Memory, Pending

LOOK_S = 1.0
AT_ONCE = 20
BY = "control"

log = structlog.get_logger()


class _Tried(NamedTuple):
    """`next`: monotonic seconds."""

    times: int
    next: float


class Hooks:
    """`run` for ever. Each control that leads begins to count tries anew."""

    def __init__(self, deps: Deps, register: Register, memory: Memory) -> None:
        self._deps, self._register, self._memory = deps, register, memory
        self._poster = Poster(deps.config, deps.dns)
        self._tried: dict[str, _Tried] = {}
        self._taken: set[str] = set()  # and not written down yet

    async def run(self) -> None:
        """Post what is pending, some at once."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._register.claims.leads and self._memory.whole:
                await self.round()

    async def round(self) -> None:
        """Post what is to be tried now."""
        now, pending = self._deps.clock.mono(), self._memory.pending
        self._tried = {id_: each for id_, each in self._tried.items() if id_ in pending}
        self._taken &= pending.keys()
        due = [id_ for id_ in pending if id_ not in self._tried or self._tried[id_].next <= now]
        await asyncio.gather(*(self._one(id_, pending[id_]) for id_ in due[:AT_ONCE]))

    async def _one(self, id_: str, pending: Pending) -> None:
        request = pending.request
        domain = self._register.book().domains.get(request.domain)
        settings = None if domain is None else complete(self._deps.config.defaults.settings(), domain)
        if settings is None or settings.contact != request.to:
            await self._end(request, taken=False, why="it is the contact no more")
            return
        why = "" if id_ in self._taken else await self._post(request, settings)
        if why:
            times = self._tried[id_].times + 1 if id_ in self._tried else 1
            again_s = webhook.again_s(times)
            self._tried[id_] = _Tried(times, self._deps.clock.mono() + again_s)
            log.warning("a notice was not taken", domain=request.domain, why=why, again_s=again_s)
        else:
            self._taken.add(id_)
        now = self._deps.events.log_time() or self._deps.clock.wall()
        if why and now - pending.at < webhook.GIVE_UP_S:
            self._deps.metrics.webhook_posts.labels("failed").inc()
        else:
            await self._end(request, taken=not why, why=why)

    async def _post(self, request: Notify, settings: DomainSettings) -> str:
        """ "" where it was taken, else why not."""
        us, now = self._deps.config.host.name, self._deps.clock.wall()
        try:
            what = webhook.post(request, us, settings.language, settings.contact_secret, now)
            return await self._poster.post(request.to, what)
        except ValueError as error:
            return str(error)
        except Exception:
            log.exception("a post failed by a bug", domain=request.domain)
            return "a fault of ours"

    async def _end(self, request: Notify, *, taken: bool, why: str) -> None:
        """Write it down; what cannot be is written in the next round."""
        about = f"{request.cause} {request.key}"
        try:
            await self._memory.write(
                Posted(secrets.token_hex(8), request.domain, BY, request.cause, request.key, taken, why)
            )
        except (LogError, Refused) as error:
            log.warning("what became of a notice is not written", domain=request.domain, error=str(error))
            return
        self._deps.metrics.webhook_posts.labels("taken" if taken else "given up").inc()
        if taken:
            self._deps.metrics.notices.labels(request.cause, "url").inc()
        self._deps.events.emit(
            Event(
                type=EventType.NOTICE,
                id=notice_id(request.domain, request.cause, request.key),
                domain=request.domain,
                recipient=request.to,
                text=about if taken else f"{about}: given up: {why}",
            )
        )
