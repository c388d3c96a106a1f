"""Content that waits for long is written again at the end, so that its dead neighbours can go (rule 6).

First the content, then, after all acknowledgements, the record that refers to it: until that is acknowledged
both places count. Never a mail that is out with an attempt.
"""

import secrets

import structlog
from msgspec.structs import replace

from libs.log.contract import LogError, NotOwner, Superseded
from libs.mail.codec import Undecodable, decode, queue_headers
from libs.mail.records import ContentRef
from services.deliver.carrier import Carriers
from services.deliver.ledger import OWNER, Unread
from services.deliver.outgoing import Job
from services.deliver.partition import Partition
from services.deliver.retention import OLD_S, QUIET_S, Live, pins, younger_than
from services.deliver.settlement import Settlement
from services.deliver.waiting import Waiting

ROUND_OCTETS = 256 * 2**20  # written again in one round; the next one goes on
_BY_DELIVER = ("by", b"deliver")  # verify steps over these chunks

log = structlog.get_logger()


class Moving:
    """Of one partition. `round` is one look at it."""

    def __init__(self, partition: Partition, settlement: Settlement, carriers: Carriers) -> None:
        self._partition, self._settlement, self._carriers = partition, settlement, carriers
        self._end, self._quiet_since, self._rolled = -1, 0.0, -1

    async def round(self) -> int:
        """Write again what keeps dead content of yesterday from going; how many mails were. Raises
        NotOwner."""
        part, ledger = self._partition, self._partition.ledger
        clocks, wall = part.shared.clocks, part.clock.wall()
        if ledger.blind or not clocks.agree:
            return 0
        try:
            old = younger_than(wall - clocks.difference_s, wall, OLD_S)
            bounds = await part.deps.log.bounds("content", part.number, old)
            await self._roll(bounds.end)
        except NotOwner:
            raise
        except LogError as error:
            log.warning("nothing is written again now", error=str(error))
            return 0
        return await self._move_all(bounds.begin, bounds.since)

    async def _roll(self, end: int) -> None:
        """Where nothing came for long, a chunk that belongs to nothing: Kafka frees only what is not written
        to any more."""
        part, now = self._partition, self._partition.clock.mono()
        if end != self._end:
            self._end, self._quiet_since = end, now
        elif now - self._quiet_since >= QUIET_S and end not in (0, self._rolled):
            headers = (("index", b"0"), ("abort", b"1"), _BY_DELIVER)
            stored = await part.append("content", secrets.token_hex(12).encode(), b"", headers)
            self._rolled = stored.offset + 1

    async def _move_all(self, begin: int, before: int) -> int:
        ledger = self._partition.ledger
        unread = {key: each for key, each in ledger.unread.items() if begin <= each.needs(begin) < before}
        mails = ledger.index.contents(begin, before)
        needed: list[Unread | Waiting] = [*unread.values(), *mails]
        lives = sorted(Live(each.needs(begin), each.chunks) for each in needed)
        if not (count := pins(lives, before)):
            return 0
        last, moved, octets = lives[count - 1].content, 0, 0
        for key, each in unread.items():
            if each.needs(begin) <= last:
                moved += await self._copy(key, each)
        for mail in mails:
            if octets >= ROUND_OCTETS or mail.needs(begin) > last:
                break
            moved += await self._carriers.hold(mail.id, self._move)
            octets += mail.size
        return moved

    async def _move(self, mail: Waiting, job: Job) -> None:
        part = self._partition
        if mail.first == mail.content:  # else it moved already, and the record of that is not ours
            job = replace(job, ref=await self._appended(mail.id.encode(), job.ref))
        await part.write(job, self._settlement.current(job))
        part.deps.metrics.contents_moved.inc()

    async def _copy(self, key: bytes, unread: Unread) -> bool:
        """Did it work? Raises NotOwner."""
        try:
            await self._move_unread(key, unread)
        except NotOwner:
            raise
        except Superseded:
            return False  # a newer record is on its way to the fold
        except (LogError, Undecodable) as error:
            log.warning(
                "a content cannot be written again now", id=key.decode("ascii", "replace"), error=str(error)
            )
            return False
        except Exception:
            log.exception("a content is left where it is by a bug", id=key.decode("ascii", "replace"))
            return False
        return True

    async def _move_unread(self, key: bytes, unread: Unread) -> None:
        """A record that no version here can decode is copied octet for octet; only where its content is
        changes, which is a header for that reason."""
        part = self._partition
        record = await part.deps.log.read("queue", part.number, unread.offset, key)
        ref = await self._appended(key, decode(record.header("content") or b"", ContentRef))
        if part.ledger.unread.get(key) != unread:
            raise Superseded(f"queue {part.number} {unread.offset}")  # a newer one was folded meanwhile
        (_, content) = queue_headers(ref)
        kept = tuple(header for header in record.headers if header[0] not in ("content", OWNER))
        stored = await part.append(
            "queue", key, record.value or b"", (*kept, content, (OWNER, part.ledger.mark))
        )
        part.ledger.rewrote(key, stored.offset, ref)
        part.deps.metrics.contents_moved.inc()

    async def _appended(self, key: bytes, ref: ContentRef) -> ContentRef:
        """The content once more, at the end. Raises NotOwner, LogError."""
        part, offsets = self._partition, []
        for offset in ref.offsets:
            chunk = await part.deps.log.read("content", part.number, offset, key)
            headers = (*(header for header in chunk.headers if header[0] != "by"), _BY_DELIVER)
            offsets.append((await part.append("content", key, chunk.value or b"", headers)).offset)
        return replace(ref, partition=part.number, offsets=tuple(offsets))
