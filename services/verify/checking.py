"""Checks a message as the service does, for `auth check`: the same Authenticator, and a record of what DNS
was asked for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from libs.mail.records import Trace
from libs.runtime.clock import SystemClock
from libs.runtime.dns import Answer, Dns
from services.verify.account import Asked, account
from services.verify.authenticate import Authenticator
from services.verify.content import Assembled
from services.verify.heavy import Pool
from services.verify.inquiry import Inquiry, Malformed, inquiry, line
from services.verify.spill import Spill
from services.verify.verdict import undecided, verdict

AT_ONCE = 64  # lines of a batch under way
LARGE = 2**20  # octets of a line with which no further one is begun: they would fill the memory

Servers = tuple[tuple[str, int], ...]
Endpoint = Callable[[str], Servers]  # reads address:port, raises Malformed


class _Witness:
    """DNS for one message: says afterwards what was asked, each question once, in order."""

    def __init__(self, dns: Dns) -> None:
        self._dns = dns
        self._asked: dict[tuple[str, str], Answer] = {}

    async def ask(self, name: str, rtype: str) -> Answer:
        return self._saw(name, rtype, await self._dns.ask(name, rtype))

    def cached(self, name: str, rtype: str) -> Answer | None:
        answer = self._dns.cached(name, rtype)
        return answer if answer is None else self._saw(name, rtype, answer)

    def _saw(self, name: str, rtype: str, answer: Answer) -> Answer:
        self._asked[name, rtype] = answer
        return answer

    def asked(self) -> list[Asked]:
        return [Asked(*question, found.kind, found.records) for question, found in self._asked.items()]


class _At:
    """The machine's clock; its wall time is that at which the message came."""

    mono = staticmethod(time.monotonic)

    def __init__(self, at: float | None) -> None:
        self._at = at

    def wall(self) -> float:
        return time.time() if self._at is None else self._at


class _Shared:
    """`users`: messages that are under way with `dns`."""

    def __init__(self, servers: Servers, timeout_s: float) -> None:
        self.dns, self.users = Dns(servers, SystemClock(), timeout_s), 0


class Checker:
    """`hosts`: our names, the first is written into the field; `servers`: DNS, that of the system when empty;
    a line of a batch may name another, which `endpoint` reads. `within_s`: what the checks of one message may
    take."""

    def __init__(
        self, hosts: Sequence[str], servers: Servers, endpoint: Endpoint, *, timeout_s: float, within_s: float
    ) -> None:
        self._hosts, self._servers, self._endpoint = hosts, servers, endpoint
        self._timeout_s, self._within_s = timeout_s, within_s
        self._pool, self._spill = Pool(), Spill(None)
        self._shared: dict[Servers, _Shared] = {}

    async def close(self) -> None:
        await self._pool.close()
        self._spill.close()

    async def check(self, about: Inquiry, servers: Servers = ()) -> dict[str, Any]:
        """What `account` tells of a message; DNS is asked at `servers`, where there are any."""
        async with self._resolver(servers or self._servers) as dns:
            return await self._check(about, _Witness(dns))

    async def _check(self, about: Inquiry, dns: _Witness) -> dict[str, Any]:
        authenticator = Authenticator(
            dns,
            _At(about.at),
            self._pool,
            authserv_id=self._hosts[0],
            hosts=self._hosts,
            within_s=self._within_s,
        )
        trace = Trace(1, "", about.ip or "", about.helo or "", about.mail_from or "", relay=about.relay or "")
        message = None if about.message is None else Assembled((about.message,), self._spill)
        found = await authenticator.found(trace, message)
        if about.ip is None or about.mail_from is None:
            missing = "the client" if about.ip is None else "the return path"
            found = found._replace(author=undecided(found.author, missing))
        said = verdict("", trace, found, self._hosts[0], about.enforce, about.trusted)
        return account(about, trace, found, authenticator.why(trace, found), said, dns.asked())

    @asynccontextmanager
    async def _resolver(self, servers: Servers) -> AsyncIterator[Dns]:
        """What DNS said is shared by messages that are under way together. Who waits for each result before
        he asks on is told what DNS says then; and of thousands of servers none is kept."""
        shared = self._shared.get(servers)
        if shared is None:
            shared = self._shared[servers] = _Shared(servers, self._timeout_s)
        shared.users += 1
        try:
            yield shared.dns
        finally:
            shared.users -= 1
            if not shared.users:
                del self._shared[servers]
                await shared.dns.close()

    async def batch(self, lines: AsyncIterator[bytes], say: Callable[[dict[str, Any]], None]) -> None:
        """`say` a result for each line, in order, while the next ones are under way."""
        results: asyncio.Queue[asyncio.Task[dict[str, Any]] | None] = asyncio.Queue(AT_ONCE)

        async def begin() -> None:
            async for raw in lines:
                under_way = asyncio.create_task(self._line(raw))
                await results.put(under_way)
                if len(raw) > LARGE:
                    await asyncio.wait((under_way,))
            await results.put(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(begin())
            while (result := await results.get()) is not None:
                say(await result)

    async def _line(self, raw: bytes) -> dict[str, Any]:
        id_ = None
        try:
            asked = line(raw)
            id_ = asked.id
            told = await self.check(inquiry(asked), self._endpoint(asked.dns) if asked.dns else ())
        except Malformed as error:
            told = {"error": str(error)}
            id_ = error.id if id_ is None else id_
        except Exception:
            structlog.get_logger().exception("a line could not be checked")
            told = {"error": "our fault: standard error says more"}
        return told if id_ is None else {"id": id_, **told}
