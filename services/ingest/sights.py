"""Who was sent back to a primary that is up (admission `fallback`): remembered by all ingest processes.

The first sight of a client network with a sender and a recipient is a record on `callouts`, which every
process follows once any domain has this admission: the second try may come to another process or host. The
key is a hash, so nobody reads addresses from it. The log keeps `callouts` for an hour: who comes back later
than that after his first try, to a process that has just started, loses one more retry.
"""

import asyncio
from contextlib import aclosing
from hashlib import blake2b

import structlog

from libs import topics
from libs.log.contract import BEGIN, LogError, Record
from libs.mail.codec import encode
from libs.mail.knowledge import Sight
from libs.runtime.deps import Deps

# For one to two days: every queue tries again many times within a day, and who wrote yesterday is let in at
# once. Longer would only help those who never try the primary.
REMEMBERED_S = 86_400.0
MOST = 100_000  # sights of a generation: both together take about 30 MB; a flood shortens the memory
PUBLISH_S = 5.0

log = structlog.get_logger()


def neighbours(client: str) -> str:
    """The network that counts as one client: `client` is an IPv4 address, of which the /24 counts (the hosts
    of one sender often take turns), or the /64 of an IPv6 address."""
    return client if ":" in client else client.rpartition(".")[0]


def salt(installation: str) -> bytes:
    """What makes the hashes of one installation (its id) of no use to another."""
    return blake2b(installation.encode()).digest()


def hashed(salt: bytes, client: str, reverse_path: str, key: str) -> bytes:
    """The key under which `client` with `reverse_path` and the mailbox `key` is remembered."""
    text = "\0".join((neighbours(client), reverse_path, key))
    return blake2b(text.encode(), digest_size=12, key=salt).hexdigest().encode()


class Memory:
    """Sights and when they were, in two generations; times are monotonic seconds."""

    def __init__(self) -> None:
        self._young: dict[bytes, float] = {}
        self._old: dict[bytes, float] = {}
        self._turn_at = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def at(self, who: bytes) -> float | None:
        """When `who` was first seen; None when never, or too long ago."""
        found = self._young.get(who)
        return self._old.get(who) if found is None else found

    def saw(self, who: bytes, at: float, now: float) -> None:
        """The first sight stays."""
        if now >= self._turn_at or len(self._young) >= MOST:
            # After two such spans without a sight nothing of the old is left either.
            self._old = {} if now >= self._turn_at + REMEMBERED_S else self._young
            self._young, self._turn_at = {}, now + REMEMBERED_S
        if self.at(who) is None:
            self._young[who] = at


class Sights:
    """run() for ever; it waits for `wanted` before it reads anything."""

    def __init__(self, deps: Deps, wanted: asyncio.Event) -> None:
        self._deps, self._wanted = deps, wanted
        self._salt = salt(deps.config.installation.id)
        self._memory = Memory()
        self._behind = set(range(deps.partitions))
        self._read = asyncio.Event()

    async def run(self) -> None:
        await self._wanted.wait()
        starts = dict.fromkeys(range(self._deps.partitions), BEGIN)
        async with aclosing(self._deps.log.follow("callouts", starts)) as batches:
            async for batch in batches:
                for record in batch.records:
                    if record.key.startswith(topics.SIGHT):
                        self._fold(record)
                if batch.position >= batch.end and self._behind:
                    self._behind.discard(batch.partition)
                    if not self._behind:
                        self._read.set()

    async def caught_up(self) -> None:
        """Return once all that is on the topic is known; at once where nobody wants to know."""
        if self._wanted.is_set():
            await self._read.wait()

    def age_s(self, client: str, reverse_path: str, key: str) -> float | None:
        """How long ago `client` (see neighbours) first came with `reverse_path` to the mailbox `key`; None:
        never."""
        at = self._memory.at(hashed(self._salt, client, reverse_path, key))
        return None if at is None else self._deps.clock.mono() - at

    async def remember(self, client: str, reverse_path: str, key: str, partition: int) -> None:
        """He came now. When other processes cannot be told, he loses one more retry there."""
        who, now = hashed(self._salt, client, reverse_path, key), self._deps.clock.mono()
        self._memory.saw(who, now, now)
        sight = Sight(self._deps.config.host.name)
        try:
            await self._deps.log.append(
                "callouts", partition, topics.SIGHT + who, encode(sight), within=PUBLISH_S
            )
        except LogError as error:
            log.warning("a first try is remembered by this process only", error=str(error))

    def _fold(self, record: Record) -> None:
        now = self._deps.clock.mono()
        age_s = max(0.0, self._deps.clock.wall() - record.time)
        self._memory.saw(record.key.removeprefix(topics.SIGHT), now - age_s, now)
