"""The end of a relay domain: at once where nothing waits, else as the operator says.

A domain that is leaving takes no more mail (451, as one that is not ours) and hands over what waits. It is
removed once nothing waits any more, and not before every ingest has surely seen that it leaves. Parked mail
ends by itself.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from libs.log.contract import LogError
from libs.runtime.deps import Deps
from services.control import domains
from services.control.domains import How, Refused
from services.control.door import SAID
from services.control.places import Places
from services.control.register import Register
from services.control.roll import Rolls

Request = Callable[[str, Mapping[str, str], str], Awaitable[dict[str, Any]]]
# Which verb of a request does it, and how often it was done is called.
_DONE = {How.BOUNCE: ("bounce", "bounced"), How.ERASE: ("delete", "deleted")}


class Removing:
    """`request(verb, words, by)`: ask deliver to do something to mails, and wait until it has; `fresh`: is
    all that waits known?"""

    def __init__(
        self,
        deps: Deps,
        register: Register,
        places: Places,
        rolls: Rolls,
        request: Request,
        fresh: Callable[[], bool],
    ) -> None:
        self._deps, self._register, self._places, self._rolls = deps, register, places, rolls
        self._request, self._fresh = request, fresh

    async def remove(self, name: str, how: How, by: str) -> dict[str, Any]:
        """`name`: lower-case A-label. What was done before something failed stays, and is nothing to be
        done when it is said again. Raises Refused, LogError."""
        if how is How.EMPTY:
            await self._register.remove(name, lambda: self._places.waiting(name))
            return {"domain": name, "removed": True, "waiting": 0}
        await self._register.leave(name, by)
        said: dict[str, Any] = {"domain": name, "removed": False}
        if how in _DONE:
            verb, word = _DONE[how]
            said[word] = (await self._request(verb, {"domain": name}, by))["changed"]
        if how is How.ERASE:
            said["deleted"] += await self._erase_unreadable(name, by)
            said["forgotten"] = await self._forget(name, by)
        return said | {"waiting": self._waits(name)}

    async def tend(self) -> None:
        """One round: remove the domains that have left. A log that is away is asked later."""
        if not self._register.claims.leads or not self._fresh():
            return
        book, now = self._register.book(), self._deps.clock.wall()
        for name in domains.gone(book, now, self._deps.config.timing.leave_s):
            if not self._waits(name):
                await self._remove(name)

    async def _remove(self, name: str) -> None:
        try:
            await self._register.remove(name, lambda: self._waits(name))
        except (LogError, Refused) as error:
            structlog.get_logger().warning("a domain is not removed now", domain=name, error=str(error))

    def _waits(self, name: str) -> int:
        """Mails that somebody does something about still."""
        return self._places.waiting(name, vault=False)

    async def _erase_unreadable(self, name: str, by: str) -> int:
        """Delete what no version here can read and is known to be of this domain; returns how much."""
        ids = self._places.unreadable(name)
        for id_ in ids:
            await self._request("delete", {"id": id_}, by)
        return len(ids)

    async def _forget(self, name: str, by: str) -> int:
        """Have verify forget its recipients; returns how many there are."""
        keys = await self._rolls.keys(name)
        for at in range(0, len(keys), SAID):
            await self._rolls.tell(name, "forget", keys[at : at + SAID], by)
        return len(keys)
