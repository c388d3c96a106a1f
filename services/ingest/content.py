"""Content on its way into the log: chunks, one budget of memory for all, back-pressure on the socket.

A chunk is appended while the next one fills; no second one is handed over before the first is acknowledged,
so the chunks of a mail are in order. When the budget (rule 13) is spent, no session reads its socket. A mail
with a failed chunk is dead (rule 2): the rest of it is read and dropped.
"""

import asyncio
import base64
import secrets
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

import structlog
from msgspec.structs import replace

from libs import topics
from libs.log.contract import LogError, Stored
from libs.mail import replies
from libs.mail.codec import encode
from libs.mail.records import ContentRef, Trace
from libs.mail.reply import Reply
from libs.runtime.deps import CONTENT_ROOM, Deps
from services.ingest.effects import Content, ContentEnd, Interrupted
from services.ingest.limits import DATA_S, HOPS, patience_s
from services.ingest.patience import Breakdowns
from services.ingest.unstuff import Unstuff
from services.ingest.verdicts import Verdicts

CHUNK, LEAST_CHUNK = 960_000, 64_000  # octets of a chunk: while there is room, and when the budget is spent
DROP = 1024  # octets; smaller parts are held as one: an object for each would cost many times what it holds
CROWD = 64  # contents at a time: of more than these, what the system holds of each is kept small
ABORT_S = 5.0

T = TypeVar("T")

log = structlog.get_logger()


class Wire(Protocol):
    """What arrives from the client. `more` waits for octets: None, or why nothing came within `within`
    seconds; it raises ConnectionError when the client is gone."""

    buffer: bytearray

    async def more(self, within: float) -> Interrupted | None: ...

    def hold(self) -> None:
        """Read nothing from the socket before the next more()."""

    def narrow(self) -> None:
        """Let the system hold little of what the client sends, from now on."""


class Budget:
    """Octets of all chunks being filled or unacknowledged; who finds no room waits in line."""

    def __init__(self, limit: int) -> None:
        self.used = 0
        self._limit = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, octets: int) -> bool:
        if self._waiting or not self._fits(octets):
            return False
        self.used += octets
        return True

    async def take(self, octets: int) -> None:
        """Hold nothing while waiting here: what others hold must be enough to give room."""
        if self.take_now(octets):
            return
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((octets, room))
        await room

    def give(self, octets: int) -> None:
        self.used -= octets
        while self._waiting and self._fits(self._waiting[0][0]):
            octets, room = self._waiting.popleft()
            if not room.done():  # cancelled: whoever waited was ended with the process
                self.used += octets
                room.set_result(None)

    @property
    def spent(self) -> bool:
        """Whoever comes now may have to wait: what it reads meanwhile would be outside of the budget."""
        return bool(self._waiting) or self.used + CHUNK > self._limit

    @property
    def chunk(self) -> int:
        """How large a chunk may grow now."""
        return max(LEAST_CHUNK, CHUNK * (self._limit - self.used) // self._limit)

    def _fits(self, octets: int) -> bool:
        return not self.used or self.used + octets <= self._limit


class Contents:
    """Receives contents. `tasks`: appends that must be awaited before this process ends."""

    def __init__(
        self, deps: Deps, verdicts: Verdicts, breakdowns: Breakdowns, *, budget: int = CONTENT_ROOM
    ) -> None:
        self._deps, self._verdicts, self._breakdowns = deps, verdicts, breakdowns
        self._within = deps.config.timing.acknowledgement_s
        self._silence_s = deps.config.smtp.data_timeout_s
        self._reject_bare_lf = deps.config.smtp.bare_newline == "reject"
        self.budget = Budget(budget)
        deps.metrics.content_budget.set_function(lambda: self.budget.used)
        self._receiving = 0
        self._ids = Ids()
        self.tasks: set[asyncio.Task[Any]] = set()

    async def receive(
        self, wire: Wire, trace: Trace, room: tuple[int, Reply], min_rate: int = 0
    ) -> ContentEnd:
        """Read to the end of data and store what came; with a content its verdict is expected. `room`: so
        many octets, and what is said of more; `min_rate`: octets a second. Raises ConnectionError when the
        client is gone before that."""
        chunks = Chunks(self, self._ids.new(), trace)
        end = ContentEnd(None, replies.OUR_FAULT)
        parse = Unstuff(reject_bare_lf=self._reject_bare_lf)
        self._receiving += 1
        if self._receiving > CROWD:  # a read brings all that it holds, before the budget is asked
            wire.narrow()
        try:
            stopped = await self._read(wire, parse, chunks, room, min_rate)
            if stopped is not None:
                end = stopped
            else:
                self._verdicts.expect(chunks.id)  # before the chunk that brings it
                end = await chunks.end(parse)
        except OSError:
            raise
        except Exception:
            if parse.ended:
                raise
            # The rest of the content is still to come, and must never be read as commands.
            self._deps.metrics.session_errors.inc()
            log.exception("content not read to its end", id=chunks.id)
            end = ContentEnd(None, replies.OUR_FAULT, close=True)
        finally:
            self._receiving -= 1
            if end.content is None:
                self._verdicts.forget(chunks.id)
                chunks.abort()
        return end

    async def _read(
        self, wire: Wire, parse: Unstuff, chunks: "Chunks", room: tuple[int, Reply], min_rate: int
    ) -> ContentEnd | None:
        """Read to the end of data. None: all of it is held or stored. What is refused is read all the same:
        no client looks for a reply before its final dot."""
        refused: Reply | None = None
        max_size, too_large = room
        until = self.mono() + DATA_S
        waited_s = 0.0
        while True:
            if wire.buffer:
                content = parse.feed(wire.buffer)
                if parse.fault:
                    return ContentEnd(None, replies.BARE_LINE_END, close=True)
                if parse.size > max_size:
                    refused = too_large
                elif chunks.failed:
                    refused = replies.NOT_STORED
                if refused is not None:
                    chunks.drop()
                elif content:
                    chunks.came = content
                    del content  # or it would be held twice: here, and in the chunk that is under way
                    if self.budget.spent:
                        wire.hold()
                    await chunks.add()
                if parse.ended:
                    break
            now = self.mono()
            silent_s = min(self._silence_s, until - now)
            behind_s = patience_s(parse.size, waited_s, rate=min_rate, grace_s=self._silence_s)
            wait_s = min(silent_s, behind_s)
            why = Interrupted.TIMEOUT if wait_s <= 0 else await wire.more(wait_s)
            if why is not None:
                host = self._deps.config.host.name
                if why is Interrupted.DRAINING:
                    said = replies.draining(host)
                else:
                    said = replies.too_slow(host) if behind_s < silent_s else replies.timed_out(host)
                return ContentEnd(None, said, close=True)
            waited_s += self.mono() - now
        if refused is None and parse.hops > HOPS:
            refused = replies.LOOP
        return None if refused is None else ContentEnd(None, refused)

    async def append(self, chunks: "Chunks", index: int, octets: bytes, trace: bytes | None) -> Stored | None:
        """Store one chunk and give its octets back to the budget; None when that failed."""
        headers = [("index", b"%d" % index)]
        if trace is not None:
            headers.append(("trace", trace))
        try:
            return await self._deps.log.append(
                "content", chunks.partition, chunks.key, octets, within=self._within, headers=headers
            )
        except LogError as error:
            log.warning("chunk not stored", id=chunks.id, error=f"{type(error).__name__}: {error}")
            self._breakdowns.failed(chunks.partition, self._deps.clock.mono())
            return None
        finally:
            self.budget.give(len(octets))

    async def append_abort(self, chunks: "Chunks", index: int) -> None:
        """Best effort: verify forgets an assembly by itself after a while, too."""
        headers = (("index", b"%d" % index), ("abort", b"1"))
        try:
            await self._deps.log.append(
                "content", chunks.partition, chunks.key, b"", within=ABORT_S, headers=headers
            )
        except LogError as error:
            log.info("abort chunk not stored", id=chunks.id, error=f"{type(error).__name__}: {error}")

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that goes on when the session that began it is gone."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def partition(self, domain: str) -> int:
        return topics.partition_of(domain, self._deps.partitions)

    def mono(self) -> float:
        return self._deps.clock.mono()


class Chunks:
    """The chunks of one content. `failed`: one could not be stored, so the mail is dead; `came`: octets for
    add()."""

    def __init__(self, contents: Contents, id_: str, trace: Trace) -> None:
        self.id, self.key = id_, id_.encode()
        self.partition = contents.partition(trace.domain)
        self.failed = False
        self.came = b""
        self._contents, self._trace = contents, trace
        self._parts: list[bytes | bytearray] = []
        self._held = 0
        self._stored: list[Stored] = []
        self._began_mono = 0.0
        self._next = 0
        self._in_flight: asyncio.Task[Stored | None] | None = None

    async def add(self) -> None:
        """Wait for room, hold what `came`, and hand over what makes a chunk."""
        budget, octets = self._contents.budget, self.came
        self.came = b""
        if not budget.take_now(len(octets)):
            await self._hand_over(CHUNK)
            await self._acknowledged()
            await budget.take(len(octets))
        if len(octets) < DROP and self._parts:
            if not isinstance(self._parts[-1], bytearray):
                self._parts.append(bytearray())
            self._parts[-1] += octets
        else:
            self._parts.append(octets)
        self._held += len(octets)
        del octets
        while self._held > (size := budget.chunk):
            await self._hand_over(size)

    async def end(self, parse: Unstuff) -> ContentEnd:
        """Store what is left, the trace with the last of it, and wait for the acknowledgements."""
        while self._held > CHUNK:
            await self._hand_over(CHUNK)
        await self._acknowledged()
        if not self.failed:
            octets, self._parts, self._held = b"".join(self._parts), [], 0
            trace = encode(replace(self._trace, chunks=self._next + 1))
            self._note(await self._contents.append(self, self._take_index(), octets, trace))
        if self.failed:
            return ContentEnd(None, replies.NOT_STORED)
        first, last = self._stored[0], self._stored[-1]
        offsets = tuple(stored.offset for stored in self._stored)
        ref = ContentRef(self.partition, offsets, parse.size, parse.eightbit)
        head = bytes(parse.head)
        return ContentEnd(Content(self.id, ref, head, first.time, self._began_mono, last.time, parse.hides))

    def drop(self) -> None:
        """Give back what is held."""
        if self._held:
            self._contents.budget.give(self._held)
            self._parts, self._held = [], 0

    def abort(self) -> None:
        """This content will not be completed: say so behind what was stored of it."""
        self.drop()
        if self._next:
            self._contents.start(self._abort())

    async def _abort(self) -> None:
        await self._acknowledged()
        await self._contents.append_abort(self, self._take_index())

    async def _hand_over(self, size: int) -> None:
        """Begin to store a chunk of `size` octets, once the one before is acknowledged."""
        await self._acknowledged()
        if self.failed or not self._held:
            self.drop()
            return
        octets = b"".join(self._parts)
        chunk, rest = octets[:size], octets[size:]
        self._parts, self._held = [rest] if rest else [], len(rest)
        self._in_flight = self._contents.start(self._contents.append(self, self._take_index(), chunk, None))

    async def _acknowledged(self) -> None:
        if self._in_flight is not None:
            task, self._in_flight = self._in_flight, None
            self._note(await task)

    def _note(self, stored: Stored | None) -> None:
        if stored is None:
            self.failed = True
            return
        if not self._stored:
            self._began_mono = self._contents.mono()
        self._stored.append(stored)

    def _take_index(self) -> int:
        self._next += 1
        return self._next - 1


class Ids:
    """Mail ids: 15 octets of chance, 24 characters of base32. They are made many at a time: asking the kernel
    for each costs more than all the rest of it."""

    def __init__(self) -> None:
        self._made = ""

    def new(self) -> str:
        if not self._made:
            self._made = base64.b32encode(secrets.token_bytes(15 * 256)).decode().lower()
        id_, self._made = self._made[:24], self._made[24:]
        return id_
