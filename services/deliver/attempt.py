"""One connection to a next hop, one transaction on it, one probe: what was said, and nothing decided."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

from libs.log.contract import Gone, Log, LogError, Superseded
from libs.mail.reply import Foreign
from libs.mail.speaks import Stage
from libs.smtp.client import Connection, Dialer, Fault
from libs.smtp.commands import Visitor, oversize
from libs.smtp.lookup import look_up
from libs.smtp.route import Found, Place
from libs.smtp.tls_policy import Barred, Tls
from services.deliver import outgoing
from services.deliver.destination import Closed, Seen, patient
from services.deliver.hop import Hop
from services.deliver.outcome import Lost, Unable, broken_off, of_hosts, probed, unreached
from services.deliver.outgoing import Answers, Job, Replies, answers, envelope, header, kept, late
from services.deliver.partition import Partition, Shared

_MOST_TARGETS = 10  # addresses tried for one connection
# A kept connection that fails here had been closed meanwhile.
_STALE = (Stage.BANNER, Stage.EHLO, Stage.MAIL, Stage.RSET)


class Missing(Exception):  # noqa: N818 the state is called content-lost
    """The content, or part of it, is not on the log any more."""


class Unreachable(Exception):  # noqa: N818
    """No connection to the next hop. `seen`: what that says of it; `found`: what DNS said."""

    def __init__(self, seen: Seen, found: Found) -> None:
        super().__init__(f"{found}: {seen}")
        self.seen, self.found = seen, found


class Kept:
    """A connection that carries one mail after the other. `used`: transactions so far; `best`: its server is
    of the best preference, which alone knows the recipients; `tls`: what was asked of it; `expires`: when DNS
    is to be asked again whether it still is the right one (monotonic seconds)."""

    def __init__(
        self,
        connection: Connection,
        room: AsyncExitStack,
        place: Place | None,
        tls: Tls,
        expires: float,
        *,
        best: bool,
    ) -> None:
        self.connection, self.best, self.expires = connection, best, expires
        self._room, self._place, self._tls = room, place, tls
        self.used = 0

    async def current(self, partition: Partition, hop: Hop) -> bool:
        """Is this the server that a new connection would go to? Asked again when its DNS records end."""
        place = partition.place(hop)
        if place != self._place:
            return False
        if partition.clock.mono() < self.expires:
            return True
        route = await look_up(partition.deps.dns, hop.name, partition.shared.ours, random.shuffle, place)
        self.expires = route.expires
        if route.found is not Found.OK:
            return False
        partition.routed(hop, route.hosts)
        known = route.preferences[0] if self.best else route.targets
        target = self.connection.target
        if target not in known:
            return False
        return (await partition.shared.demands.of(hop.name, route, place))[target.host] == self._tls

    async def quit(self) -> None:
        if self.connection.usable:
            await self.connection.quit()
        else:
            self.connection.abort()
        await self._room.aclose()


async def connect(partition: Partition, hop: Hop, *, probe: bool = False) -> Kept:
    """A new connection to the best host of `hop` that answers (RFC 5321 section 5.1). Raises Unreachable."""
    shared = partition.shared
    place = partition.place(hop)
    route = await look_up(shared.deps.dns, hop.name, shared.ours, random.shuffle, place)
    if route.found is not Found.OK:
        raise Unreachable(Closed(f"DNS: {route.found}"), route.found)
    partition.routed(hop, route.hosts)
    demands = await shared.demands.of(hop.name, route, place)
    dialer = _dialer(shared, hop, probe=probe)
    seen: Seen = Closed("no address")
    for target in route.targets[:_MOST_TARGETS]:
        tls = demands[target.host]
        if isinstance(tls, Barred):
            seen = of_hosts(seen, Closed(tls.reason))
            continue
        room = AsyncExitStack()
        try:
            await room.enter_async_context(shared.addresses.room(target.address, probe=probe))
            began = partition.clock.mono()
            connection = await dialer.connect(target, tls)
            hop.slow = partition.clock.mono() - began >= partition.deps.config.dial.greeting_s
            best = target in route.preferences[0]
            return Kept(connection, room, place, tls, route.expires, best=best)
        except Fault as fault:
            await room.aclose()
            hop.slow = False
            seen = of_hosts(seen, unreached(fault.stage, fault.reply, fault.detail or fault.reason))
        except BaseException:
            await room.aclose()
            raise
    raise Unreachable(seen, route.found)


def _dialer(shared: Shared, hop: Hop, *, probe: bool) -> Dialer:
    """Who takes a connection and says nothing holds nobody's mail for the minutes that RFC 5321 section
    4.5.3.2 has a client wait; a server that needs them is found all the same (destination.patient)."""
    dialers = shared.dialers
    if probe:
        return dialers.lenient if hop.slow or patient(hop.destination) else dialers.prober
    return dialers.patient if hop.slow or not hop.primary else dialers.brisk


async def transact(
    kept_: Kept, partition: Partition, job: Job, open_: Sequence[int], may_finish: Callable[[], bool]
) -> Answers:
    """One transaction for the recipients `open_`; for a late rejecter one for each of them.

    Raises Missing and LogError (nothing was said to the server, or the connection was cut before the final
    dot), Stale (a kept connection had been closed meanwhile) and Withheld (the claim was lost before MAIL, or
    `may_finish` said no).
    """
    if len(open_) > 1 and partition.is_late(job.mail.next_hop):
        return await _one_by_one(kept_, partition, job, open_, may_finish)
    got = await _together(kept_, partition, job, open_, may_finish)
    if again := late(open_, got):
        return {**got, **await _one_by_one(kept_, partition, job, again, may_finish)}
    return got


async def _one_by_one(
    kept_: Kept, partition: Partition, job: Job, open_: Sequence[int], may_finish: Callable[[], bool]
) -> Answers:
    """A transaction for each recipient: who rejects after the final dot says so for all of them at once.

    Raises as transact() before the first of them; what is cut off later is tried again another time.
    """
    got: dict[int, tuple[str, Foreign | Lost | Unable]] = {}
    for index in open_:
        try:
            if got and not kept_.connection.usable:
                break
            got.update(await _together(kept_, partition, job, (index,), may_finish))
        except (Stale, Withheld, Missing, LogError):
            if not got:
                raise
            break
    left = (index for index in open_ if index not in got)
    return got | dict.fromkeys(left, (Stage.RSET, Lost("cut off after others")))


async def _together(
    kept_: Kept, partition: Partition, job: Job, open_: Sequence[int], may_finish: Callable[[], bool]
) -> Answers:
    content = await _content(partition.deps.log, job)
    if not partition.claim.held():
        raise Withheld
    kept_.used += 1
    written = envelope(job, open_)
    visitor = outgoing.visitor(job, partition.settings(job.mail.domain), partition.relays)
    try:
        if (known := await _introduced(kept_, partition, visitor)) is not None:
            return dict.fromkeys(open_, known)
        sent = await kept_.connection.send(written, content, may_finish)
    except Fault as fault:
        return dict.fromkeys(open_, _what(fault, stale=kept_.used > 1))
    replies = Replies(sent.mail, sent.recipients, sent.data, sent.dot)
    return answers(open_, replies, oversize=oversize(written, kept_.connection.capabilities))


async def _introduced(
    kept_: Kept, partition: Partition, visitor: Visitor | None
) -> tuple[str, Foreign | Lost] | None:
    """The server knows whose mail comes; what it said where it wants none of his. Raises Stale, Fault."""
    connection = kept_.connection
    if not connection.takes(visitor):
        raise Stale
    if visitor is None:
        return None
    try:
        await connection.introduce(visitor, partition.deps.config.host.name)
    except Fault as fault:
        if kept_.used > 1 and (fault.reply is None or fault.reply.code == 421):
            raise  # it had been closed meanwhile
        # It speaks of this mail's client, and not of us; so does a server that hangs up on him.
        return Stage.DATA, fault.reply or Lost(f"XCLIENT: {fault.reason}")
    return None


class Stale(Exception):  # noqa: N818
    """The server had closed a connection that was kept: try again on a new one."""


class Withheld(Exception):  # noqa: N818
    """The claim was lost before MAIL, or before the final dot: then the connection was cut."""


def _what(fault: Fault, *, stale: bool) -> tuple[str, Foreign | Lost | Unable]:
    if fault.reason == "withheld":
        raise Withheld from fault
    if stale and fault.stage in _STALE and (fault.reply is None or fault.reply.code == 421):
        raise Stale from fault
    return broken_off(fault.stage, fault.reply, fault.reason)


async def _content(log: Log, job: Job) -> bytes | AsyncIterator[bytes]:
    """The octets to send. The first chunk is read at once: a content that is lost costs no connection."""
    first = await _chunk(log, job, 0)
    if len(job.ref.offsets) == 1:
        if len(first) != job.ref.size:
            raise Missing(f"{len(first)} of {job.ref.size} octets")
        return job.mail.prepend + kept(first, 0, job.mail.strip)
    return _chunks(log, job, first)


async def _chunks(log: Log, job: Job, first: bytes) -> AsyncIterator[bytes]:
    yield job.mail.prepend + kept(first, 0, job.mail.strip)
    at = len(first)
    for index in range(1, len(job.ref.offsets)):
        chunk = await _chunk(log, job, index)
        if index + 1 == len(job.ref.offsets) and at + len(chunk) != job.ref.size:
            raise Missing(f"{at + len(chunk)} of {job.ref.size} octets")
        yield kept(chunk, at, job.mail.strip)
        at += len(chunk)


async def _chunk(log: Log, job: Job, index: int) -> bytes:
    offset, key = job.ref.offsets[index], job.mail.id.encode()
    try:
        record = await log.read("content", job.ref.partition, offset, key)
    except (Gone, Superseded) as error:
        raise Missing(str(error)) from error
    if record.value is None or record.header("index") != str(index).encode():
        raise Missing(f"chunk {index} at offset {offset} is another one")
    return record.value


async def read_header(log: Log, job: Job) -> bytes:
    """The header of the mail's content, as received. Raises Missing, LogError."""
    return header(await _chunk(log, job, 0))


async def probe(partition: Partition, hop: Hop, recipient: str) -> Seen:
    """Is it up? EHLO, MAIL FROM:<postmaster@OUR-HOST>, RCPT, RSET: a banner is not "up"."""
    try:
        kept_ = await connect(partition, hop, probe=True)
    except Unreachable as unreachable:
        return unreachable.seen
    try:
        sender = f"postmaster@{partition.deps.config.host.name}"
        ((stage, reply),) = await kept_.connection.verify(sender, [recipient])
    except Fault as fault:
        return unreached(fault.stage, fault.reply, fault.detail or fault.reason)
    finally:
        await kept_.quit()
    return probed(stage, reply)
