"""A session with whichever address of a primary's best preference answers first; slots and pace of each
dialled address, for many domains may share one server.

Firewalls let a connection hang, and postscreen makes a new client wait 6 s for its greeting: an address that
has not answered for its share of the time gets the next one beside it, and is not given up (as in RFC 8305).
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from libs.runtime.deps import Deps
from libs.smtp.client import Connection, Dialer, Fault, Target
from libs.smtp.demands import Demands
from libs.smtp.lookup import look_up
from libs.smtp.route import Found, Ours, Place, Route
from libs.smtp.tls_policy import Barred, Tls
from services.verify.asking import Pace, paced
from services.verify.finding import Unverifiable, classify

REACH_S = 15.0  # for look-ups and all addresses of the best preference
BESIDE_S = 4.0  # for those of the worse ones, when the best is not reached: somebody still waits

_UNREACHABLE = Unverifiable("unreachable", blocked=False)
BUSY = Unverifiable("busy", blocked=False)  # others had all slots: nothing is known of the primary


class Reach:
    """`per_address`: sessions at a time with each dialled address, which hears `per_s` questions a second,
    `burst` at once. `within`: seconds for connect(); `place`: what the owner of a domain says of its
    primary."""

    def __init__(
        self, deps: Deps, dialer: Dialer, *, per_address: int, per_s: float, burst: float,
        within: float = REACH_S, place: Callable[[str], Place | None] = lambda _domain: None,
    ) -> None:  # fmt: skip
        self._dns, self._clock, self._dialer = deps.dns, deps.clock, dialer
        host, installation = deps.config.host, deps.config.installation
        self._ours = Ours(installation.hosts, (*host.ipv4, *host.ipv6))
        self._per_s, self._burst, self._within = per_s, burst, within
        self._place = place
        self._demands = Demands(deps.config, deps.dns, deps.clock)
        self._slots = _Slots(per_address)
        self._paces: dict[str, Pace] = {}

    async def connect(self, domain: str) -> Connection | Unverifiable:
        """A session with an address of the best preference: only that one knows. Its slot is taken until
        leave()."""
        race = _Race(self._dialer, self._slots)
        try:
            async with asyncio.timeout(self._within) as limit:
                place = self._place(domain)
                route = await look_up(self._dns, domain, self._ours, random.shuffle, place)
                if route.found is not Found.OK or not route.preferences[0]:
                    return Unverifiable(_why(route), blocked=False)
                demands = await self._demands.of(domain, route, place)
                left_s = (limit.when() or 0) - asyncio.get_running_loop().time()
                return await race.run(route.preferences[0], demands, left_s)
        except TimeoutError:
            return race.failure
        finally:
            await race.end()

    async def beside(self, domain: str) -> Connection | None:
        """A session with an address of a worse preference that is still above us (route.choose), the best of
        them first; its slot is taken until leave(). None: there is none."""
        race = _Race(self._dialer, self._slots)
        try:
            async with asyncio.timeout(BESIDE_S):
                place = self._place(domain)
                route = await look_up(self._dns, domain, self._ours, random.shuffle, place)
                worse = [target for targets in route.preferences[1:] for target in targets]
                found = await race.run(worse, await self._demands.of(domain, route, place), BESIDE_S)
                return found if isinstance(found, Connection) else None
        except TimeoutError:
            return None
        finally:
            await race.end()

    async def close(self) -> None:
        """Ask nobody for a policy any more."""
        await self._demands.close()

    def leave(self, connection: Connection) -> None:
        """Close it and give its slot back."""
        connection.abort()
        self._slots.release(connection.target.address)

    def wanted(self, address: str) -> bool:
        """Does somebody wait for a slot?"""
        return self._slots.wanted(address)

    async def pace(self, address: str, count: int) -> None:
        """Wait until so many more may be asked about."""
        before, now = self._paces.get(address), self._clock.mono()
        self._paces[address], wait_s = paced(before, count, now, self._per_s, self._burst)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if len(self._paces) > 10_000:
            self._paces.clear()  # an address that was forgotten gets a fresh burst, no more


class _Slots:
    """So many sessions with each address."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    async def acquire(self, address: str) -> None:
        self._users[address] = self._users.get(address, 0) + 1
        try:
            await self._slots.setdefault(address, asyncio.Semaphore(self._each)).acquire()
        except asyncio.CancelledError:
            self._forget(address)
            raise

    def release(self, address: str) -> None:
        self._slots[address].release()
        self._forget(address)

    def wanted(self, address: str) -> bool:
        return self._users.get(address, 0) > self._each

    def _forget(self, address: str) -> None:
        self._users[address] -= 1
        if not self._users[address]:
            del self._users[address], self._slots[address]


class _Race:
    """All addresses of one preference, for one session. `failure`: what is known of those that failed, the
    most telling of them; that not one answers is not known before all were dialled."""

    def __init__(self, dialer: Dialer, slots: _Slots) -> None:
        self._dialer, self._slots = dialer, slots
        self._running: set[asyncio.Task[Connection | Unverifiable]] = set()
        self._left = 0  # addresses that were not dialled yet
        self._failure = _UNREACHABLE

    @property
    def failure(self) -> Unverifiable:
        return BUSY if self._left and not self._failure.reply else self._failure

    async def run(
        self, targets: Sequence[Target], demands: Mapping[str, Tls | Barred], within: float
    ) -> Connection | Unverifiable:
        """The first session; each next address is dialled when one has failed, or after its share of the
        `within` seconds."""
        self._left = len(targets)
        for number, target in enumerate(targets, 1):
            self._running.add(asyncio.create_task(self._try(target, demands[target.host])))
            last = number == len(targets)
            while self._running:
                done, self._running = await asyncio.wait(
                    self._running,
                    timeout=None if last else within / len(targets),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if (winner := self._first(done)) is not None:
                    return winner
                if not last:
                    break
        return self.failure

    async def end(self) -> None:
        """Leave the others."""
        running, self._running = self._running, set()
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task in running:
            if not task.cancelled() and isinstance(late := task.result(), Connection):
                self._drop(late)

    def _first(self, done: set[asyncio.Task[Connection | Unverifiable]]) -> Connection | None:
        winner: Connection | None = None
        for task in done:
            reached = task.result()
            if isinstance(reached, Unverifiable):
                if _tells(reached) >= _tells(self._failure):
                    self._failure = reached
            elif winner is None:
                winner = reached
            else:
                self._drop(reached)
        return winner

    def _drop(self, connection: Connection) -> None:
        connection.abort()
        self._slots.release(connection.target.address)

    async def _try(self, target: Target, tls: Tls | Barred) -> Connection | Unverifiable:
        if isinstance(tls, Barred):
            self._left -= 1
            return Unverifiable("tls", blocked=False)
        await self._slots.acquire(target.address)
        self._left -= 1
        try:
            return await self._dialer.connect(target, tls)
        except BaseException as error:
            self._slots.release(target.address)
            if not isinstance(error, Fault):
                raise
            finding = classify(error.stage, error.reply, error.reason)
            return finding if isinstance(finding, Unverifiable) else _UNREACHABLE


def _why(route: Route) -> str:
    match route.found:
        case Found.OK | Found.TROUBLE:
            return "dns trouble"
        case Found.NULL_MX | Found.NXDOMAIN | Found.NONE:
            return "no primary"


def _tells(failure: Unverifiable) -> int:
    """How much it says of the preference: a block, that it is ourselves, a reply; a silence says least."""
    if failure.blocked:
        return 3
    return 2 if failure.reason == "ourselves" else 1 if failure.reply else 0
