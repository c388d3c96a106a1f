"""Appending to Kafka: a record is handed to a producer once, and a producer that failed is replaced.

Shell: sockets and tasks. aiokafka's own send() has no moment of which one could say "before this the record
is certainly not stored". Here there is one, `Lane._hand_over`: it is synchronous, checks the claims, and
gives everything that waits for a partition to the producer as one batch. Before it a failure is NotStored;
after it Ambiguous. While a batch of a partition is under way, what arrives for it waits, and becomes the next
batch.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from aiokafka import errors
from aiokafka.structs import TopicPartition

from libs.log.contract import (
    Ambiguous,
    Misconfigured,
    NotOwner,
    NotStored,
    Stored,
    Unavailable,
)
from libs.log.crowd import Crowd
from libs.log.deadlines import Deadlines
from libs.log.kafka_line import LARGEST, Item, Line
from libs.log.kafka_wire import Wire

IN_FLIGHT = 2 * 2**20  # octets handed over and not acknowledged; more would only wait in a socket
# In a crowd, records gather so long after one hand-over for the next: a request costs broker and producer as
# much as the records of many mails. What comes alone does not wait, nor what belongs to a topic of `prompt`.
GATHER_S = 0.01
RETRY_S = 0.25
REBUILD_S = 5.0  # at most one new producer in this time
RETIRED_S = 30.0  # a replaced producer may finish its other partitions for this long
WATCH_S = 0.5

# The broker looked at the batch and refused it for what it is: it cannot have stored an earlier try either.
_REFUSED = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidMessageError,
    errors.InvalidTimestampError,
    errors.InvalidTopicError,
)


class Lane:
    """Everything of one kind (content; queue and state) goes through one producer at a time.

    Bulk and state have lanes of their own: a producer has one request under way to a broker, and a commit
    must not wait behind a megabyte. `prompt`: topics whose records nobody shall wait for.
    """

    def __init__(
        self,
        bootstrap: Sequence[str],
        topics: Sequence[str],
        name: str,
        timeout_ms: int,
        wire: Wire,
        prompt: Collection[str] = (),
    ) -> None:
        self._bootstrap, self._topics, self._name, self._prompt = bootstrap, tuple(topics), name, prompt
        self._timeout_ms, self._wire = timeout_ms, wire
        self._watching: asyncio.Task[None] | None = None
        self._line: Line | None = None
        self._waiting: dict[TopicPartition, deque[Item]] = {}
        self._scheduled: set[TopicPartition] = set()
        self._known: set[TopicPartition] = set()
        self._in_flight = 0
        self._handed_at = float("-inf")
        self._crowd = Crowd()
        self._built_at = float("-inf")
        self._building: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False
        self._deadlines = Deadlines()

    async def start(self) -> None:
        """Raises Unavailable; may be called again, also after close()."""
        self._loop = asyncio.get_running_loop()  # kept: asking for it is a system call (getpid) each time
        await self._connect()
        self._closed = False
        self._watching = self._loop.create_task(self._watch())

    async def _connect(self) -> None:
        line = Line(self._bootstrap, self._name, self._timeout_ms, self._wire)
        await line.start(self._topics)
        self._line, self._built_at = line, self._now()

    async def close(self) -> None:
        """What was not handed over is NotStored, what was and is not acknowledged is Ambiguous."""
        self._closed = True
        for task in (self._watching, self._building):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        self._watching = self._building = None
        for queue in self._waiting.values():
            for item in queue:
                item.fail(NotStored("the log is closed"))
        self._waiting.clear()
        for retiring in self._retiring:
            retiring.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._line is not None:
            line, self._line = self._line, None
            await line.discard()

    async def append(self, topic: str, partition: int, item: Item, within: float) -> Stored:
        """Raises NotStored, Ambiguous, NotOwner, Misconfigured."""
        if item.size > LARGEST:
            raise NotStored(f"{item.size} octets are more than the {LARGEST} of the largest record")
        if self._closed:
            raise NotStored("the log is closed")
        at = TopicPartition(topic, partition)
        self._waiting.setdefault(at, deque()).append(item)
        self._crowd.came(self._now())
        self._schedule(at)
        self._deadlines.watch(item.future, within)
        try:
            return await item.future
        except TimeoutError:
            if item.line is None:
                raise NotStored(f"{topic}/{partition} took nothing within {within:g} s") from None
            self._failed(item.line, at)
            raise Ambiguous(f"no acknowledgement from {topic}/{partition} within {within:g} s") from None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if self._line is not None:
                    await self._line.leave_deposed()
            except Unavailable:
                continue  # no broker answers: there is no new leader to go to

    def _now(self) -> float:
        return self._loop.time()

    def _schedule(self, at: TopicPartition) -> None:
        """Hand over what waits for `at` at the end of this turn of the loop, or in a crowd when the last
        hand-over is GATHER_S ago. Appends until then share a batch, and batches of several partitions a
        request."""
        if at not in self._scheduled:
            self._scheduled.add(at)
            gathers = at.topic not in self._prompt and self._crowd.gathers(self._now())
            due = self._handed_at + GATHER_S if gathers else 0.0
            self._loop.call_at(due, self._hand_over, at)

    def _hand_over(self, at: TopicPartition) -> None:
        self._scheduled.discard(at)
        queue, line = self._waiting.get(at), self._line
        if not queue or line is None or self._closed or at in line.batches:
            return
        if line.dead:
            self._failed(line, at)
        if at in line.stuck:
            return
        if line.knows(at):
            self._known.add(at)
        elif at in self._known:  # a broker that has just come back may not know it yet
            self._loop.call_later(RETRY_S, self._schedule, at)
            return
        else:
            self._unknown(at)
            return
        builder, items, size = self._fill(line, queue)
        if items:
            self._in_flight += size
            self._handed_at = self._now()
            future = line.send(at, builder, items)
            future.add_done_callback(lambda done: self._acknowledged(line, at, items, size, done))

    def _fill(self, line: Line, queue: "deque[Item]") -> tuple[Any, list[Item], int]:
        """A batch of what waits in `queue` and still should be stored; nothing while too much is in
        flight."""
        builder, items, size = line.builder(), [], 0
        while queue:
            item = queue[0]
            if item.future.done():  # timed out or cancelled while it waited: certainly not stored
                queue.popleft()
                continue
            if item.claim is not None and not item.claim.held():
                queue.popleft()
                item.fail(NotOwner(f"{item.claim.group} does not hold {item.claim.partition}"))
                continue
            if self._in_flight + size and self._in_flight + size + item.size > IN_FLIGHT:
                break
            if builder.append(timestamp=None, key=item.key, value=item.value, headers=item.headers) is None:
                break
            queue.popleft()
            items.append(item)
            size += item.size
        return builder, items, size

    def _acknowledged(
        self, line: Line, at: TopicPartition, items: list[Item], size: int, done: "asyncio.Future[Any]"
    ) -> None:
        self._in_flight -= size
        del line.batches[at]
        error = done.exception()
        if error is None:
            self._stored(at, items, done.result())
        else:
            refused = isinstance(error, _REFUSED)
            kind = NotStored if refused else Ambiguous
            for item in items:
                item.fail(kind(f"{at.topic}/{at.partition}: {error!r}"))
            self._failed(line, at)
        for other in self._ready():
            self._schedule(other)

    def _ready(self) -> Iterator[TopicPartition]:
        """Partitions with something that waits and nothing under way."""
        busy = self._line.batches if self._line is not None else {}
        return (at for at, queue in self._waiting.items() if queue and at not in busy)

    def _stored(self, at: TopicPartition, items: list[Item], metadata: Any) -> None:
        for i, item in enumerate(items):
            if item.future.done():
                continue
            if metadata is None or metadata.offset < 0:
                # "duplicate sequence": stored, but nobody knows where
                item.fail(Ambiguous(f"{at.topic}/{at.partition} was acknowledged without an offset"))
            elif metadata.timestamp_type != 1:
                item.fail(Misconfigured(f"{at.topic} keeps the writer's time: it needs LogAppendTime"))
            else:
                item.future.set_result(Stored(metadata.offset + i, metadata.timestamp / 1000))

    def _unknown(self, at: TopicPartition) -> None:
        for item in self._waiting.pop(at, ()):
            item.fail(Misconfigured(f"there is no partition {at.partition} of topic {at.topic}"))

    def _failed(self, line: Line, at: TopicPartition) -> None:
        """After any failure the partition gets nothing from this producer any more, and a new one is made."""
        line.stuck.add(at)
        if line is self._line and self._building is None and not self._closed:
            self._building = self._loop.create_task(self._rebuild(line))

    async def _rebuild(self, old: Line) -> None:
        await asyncio.sleep(max(0.0, self._built_at + REBUILD_S - self._now()))
        while True:
            try:
                await self._connect()
                break
            except Unavailable:
                await asyncio.sleep(RETRY_S)
        self._building = None
        task = self._loop.create_task(self._retire(old))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        for at in self._ready():
            self._schedule(at)

    async def _retire(self, line: Line) -> None:
        """Let the replaced producer finish what somebody still waits for, then discard it."""
        try:
            deadline = self._now() + RETIRED_S
            while line.awaited and self._now() < deadline:
                futures = [i.future for items in line.batches.values() for i in items if not i.future.done()]
                await asyncio.wait(
                    futures, timeout=deadline - self._now(), return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            await line.discard()
