"""The partition's `queue` folded into the index by rule 3: the owner has the last word, tombstones are final.

`fold` takes each record in order and returns what the owner has to do about it. Nothing is done here.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from libs.log.contract import Record
from libs.mail.codec import FORMAT, Undecodable, decode, decode_recipient
from libs.mail.knowledge import PrimaryFacts, RecipientStatus
from libs.mail.records import ContentRef, Kind, Progress, State
from libs.mail.states import fresh, merged
from services.deliver.waiting import Index, Waiting

OWNER = "owner"  # the record header that names the claim under which a state was written
CONFIRMED_S = 5.0  # so fresh a callout's answer is news of the primary
REMEMBERED_S = 3600.0  # so long a tombstone's id is remembered after it was seen (monotonic seconds)


class _MailPart(Struct, frozen=True):
    """The fields of Mail that the index needs; the others are not even looked at."""

    domain: str
    next_hop: str
    kind: Kind
    arrived: float


class _Entry(Struct, frozen=True):
    mail: _MailPart
    progress: Progress


_decoder = msgspec.msgpack.Decoder(_Entry)


class Unread(NamedTuple):
    """A record that cannot be decoded: its `offset` in the queue, and content as in waiting.Waiting."""

    offset: int
    content: int
    first: int
    chunks: int

    def needs(self, begin: int) -> int:
        """As waiting.Waiting.needs."""
        return self.content if self.content >= begin else self.first


class Todo(StrEnum):
    """NOTHING: folded. ADDED: a mail to deliver. BURY: write another tombstone. MERGE: two owners wrote;
    write what both know. UNREADABLE: count it, say it, keep it. LEFT: its tombstone came."""

    NOTHING = "nothing"
    ADDED = "added"
    BURY = "bury"
    MERGE = "merge"
    UNREADABLE = "unreadable"
    LEFT = "left"


class Ledger:
    """All that is known of one partition's queue. `mark`: the owner header of this claim's own writes.

    `foreign`: what another owner wrote of a mail and is not yet merged; `position`: the next offset to fold;
    `blind`: keys of records whose content reference cannot be read: nothing may be truncated.
    """

    def __init__(self, mark: bytes) -> None:
        self.index = Index()
        self.mark = mark
        self.position = 0
        self.caught_up = False
        self.foreign: dict[str, Progress] = {}
        self.unread: dict[bytes, Unread] = {}
        self.blind: set[bytes] = set()
        self.unfinished: set[str] = set()
        self._buried: dict[bytes, float] = {}
        self._written: dict[str, tuple[bytes, Progress]] = {}  # while scanning: the last state of each key

    def fold(self, record: Record, now: float) -> Todo:
        """One record of the queue, in order; `now` monotonic seconds."""
        if record.value is None:
            return self._tombstone(record, now)
        if record.key in self._buried:
            return Todo.BURY
        try:
            seen, ref, id_, mark = _read(record)
        except Undecodable:
            return self._unreadable(record)
        known = self.index.get(id_)
        new = _first(seen.progress, mark)
        unread = self.unreadable(record.key)
        lowest = self._readable(record.key, ref)
        if known is None:
            if self.caught_up and not new and not unread:
                # Our own write that overtook its tombstone needs nothing; anybody else's is stale.
                return Todo.NOTHING if mark == self.mark else Todo.BURY
            self._put(id_, record.offset, seen.progress, ref, seen.mail, lowest)
            self._remember(id_, mark, seen.progress)
            return Todo.ADDED
        if mark == self.mark:
            if record.offset > known.offset:
                self.wrote(id_, record.offset, seen.progress, ref)
            return Todo.NOTHING
        return self._foreign(id_, mark, record.offset, seen.progress, ref)

    def wrote(self, id_: str, offset: int, progress: Progress, ref: ContentRef) -> None:
        """The newest record of a mail is at `offset`, and this claim wrote it: what it refers to is all that
        counts from now on (rule 6)."""
        known = self.index.get(id_)
        if known is not None and known.offset <= offset:  # else it ended meanwhile
            self._put(id_, offset, progress, ref, known, min(ref.offsets))

    def rewrote(self, key: bytes, offset: int, ref: ContentRef) -> None:
        """A record that cannot be decoded was written again by this claim, at `offset`."""
        if key in self.unread:
            self.unread[key] = Unread(offset, min(ref.offsets), min(ref.offsets), len(ref.offsets))

    def _put(
        self,
        id_: str,
        offset: int,
        progress: Progress,
        ref: ContentRef,
        base: _MailPart | Waiting,
        content: int,
    ) -> None:
        due = progress.next_attempt if progress.state is State.DEFERRED else 0.0
        self.index.put(
            Waiting(
                arrived=base.arrived,
                id=id_,
                domain=base.domain,
                next_hop=base.next_hop,
                kind=base.kind,
                state=progress.state,
                due=due,
                size=ref.size,
                offset=offset,
                content=content,
                first=min(ref.offsets),
                chunks=len(ref.offsets),
                delay_told=progress.delay_told,
            )
        )
        if progress.dsn_id:
            self.unfinished.add(id_)
        else:
            self.unfinished.discard(id_)

    def scanned(self) -> list[str]:
        """The scan under this claim is over: from now on an unknown state is stale. Returns the ids for which
        two owners' states have to be merged and written."""
        self.caught_up = True
        self._written.clear()
        return list(self.foreign)

    def end(self, id_: str) -> None:
        """The mail's tombstone was acknowledged."""
        self.index.drop(id_)
        self.foreign.pop(id_, None)
        self.unfinished.discard(id_)

    def met(self, id_: str) -> bool:
        """Is there a mail of this id, or was there one within the last hour?"""
        return self.index.get(id_) is not None or id_.encode() in self._buried

    def unreadable(self, key: bytes) -> bool:
        """Is the newest record of `key` one that cannot be decoded?"""
        return key in self.unread or key in self.blind

    def forget(self, now: float) -> None:
        """Let go of tombstones seen more than an hour ago."""
        limit = now - REMEMBERED_S
        for key in [key for key, at in self._buried.items() if at < limit]:
            del self._buried[key]

    def lowest_content(self, begin: int) -> int | None:
        """L of rule 5, over every record in whatever state, those that cannot be decoded included. `begin`:
        of the content."""
        known = self.index.lowest_content(begin)
        unread = [at for each in self.unread.values() if (at := each.needs(begin)) >= begin]
        return min([*unread, *([] if known is None else [known])], default=None)

    # --- inside ---

    def _tombstone(self, record: Record, now: float) -> Todo:
        self._buried[record.key] = now
        self.unread.pop(record.key, None)
        self.blind.discard(record.key)
        id_ = record.key.decode("ascii", "replace")
        self._written.pop(id_, None)
        known = self.index.get(id_)
        self.end(id_)
        return Todo.NOTHING if known is None else Todo.LEFT

    def _unreadable(self, record: Record) -> Todo:
        """What is known of the mail from before is over, for a newer version may have written this: nobody
        acts on it. Its content is kept, too."""
        id_ = record.key.decode("ascii", "replace")
        before: list[Waiting | Unread] = []
        if (mail := self.index.get(id_)) is not None:
            self._written.pop(id_, None)
            self.end(id_)
            before.append(mail)
        try:
            ref = _reference(record.header("content"))
        except Undecodable:
            self.blind.add(record.key)
            return Todo.UNREADABLE
        if (known := self.unread.get(record.key)) is not None:
            if record.header(OWNER) == self.mark:
                self.rewrote(record.key, record.offset, ref)  # it was counted and said before
                return Todo.NOTHING
            before.append(known)
        lowest = min([*ref.offsets, *(each.content for each in before)])
        self.unread[record.key] = Unread(record.offset, lowest, min(ref.offsets), len(ref.offsets))
        return Todo.UNREADABLE

    def _readable(self, key: bytes, ref: ContentRef) -> int:
        """A record with `ref` came that can be read: the lowest content that it and, where that one could not
        be read, the one before refer to."""
        if not self.unread and not self.blind:
            return min(ref.offsets)
        unread = self.unread.pop(key, None)
        self.blind.discard(key)
        return min(ref.offsets) if unread is None else min(*ref.offsets, unread.content)

    def _foreign(self, id_: str, mark: bytes, offset: int, progress: Progress, ref: ContentRef) -> Todo:
        """A record of a known mail that this claim did not write."""
        if not self.caught_up:
            before = self._written.get(id_)
            if before is not None and before[0] != mark and not _first(progress, mark):
                both = merged(before[1], progress)
                if both != progress:
                    self.foreign[id_] = progress = both
            self._scan(id_, offset, progress, ref)
            self._remember(id_, mark, progress)
            return Todo.NOTHING
        if _first(progress, mark):
            return Todo.NOTHING  # nothing happened to the mail there that could be news
        pending = self.foreign.get(id_)
        self.foreign[id_] = progress if pending is None else merged(pending, progress)
        return Todo.MERGE

    def _scan(self, id_: str, offset: int, progress: Progress, ref: ContentRef) -> None:
        """A later record of a known mail. Until this claim writes it again, each reference that was seen
        counts; the highest wins: a lower one is of an owner who did not know that the content had moved."""
        known = self.index.get(id_)
        assert known is not None
        lowest = min(known.content, *ref.offsets)
        if min(ref.offsets) >= known.first:
            self._put(id_, offset, progress, ref, known, lowest)
        else:
            self.foreign[id_] = progress
            self.index.put(replace(known, content=lowest))

    def _remember(self, id_: str, mark: bytes, progress: Progress) -> None:
        if not self.caught_up and not _first(progress, mark):
            self._written[id_] = (mark, progress)


def _first(progress: Progress, mark: bytes) -> bool:
    """Is this a mail's first record? Nothing happened to it, or ingest (which owns nothing) holds a loop."""
    return fresh(progress) or (not mark and progress.state is State.HELD)


def confirmed_domain(key: bytes, value: bytes | None, wall: float) -> str:
    """The domain whose primary just answered a callout, by a record of `recipients`; "" for anything else."""
    if value is None or b"@" not in key:
        return ""
    try:
        known = decode_recipient(value)
    except Undecodable:
        return ""  # verify's to say
    just_now = isinstance(known, RecipientStatus) and abs(wall - known.confirmed) <= CONFIRMED_S
    return key.decode("utf-8", "replace").rpartition("@")[2] if just_now else ""


def facts_of(key: bytes, value: bytes | None) -> PrimaryFacts | None:
    """What callouts learnt of a primary, by a record of `recipients`; None for anything else."""
    if value is None or not key.startswith(b"@"):
        return None
    try:
        known = decode_recipient(value)
    except Undecodable:
        return None  # verify's to say
    return known if isinstance(known, PrimaryFacts) else None


def _read(record: Record) -> tuple[_Entry, ContentRef, str, bytes]:
    """The entry, its content, its id, and the mark of who wrote it. Raises Undecodable."""
    headers = dict(record.headers)
    if headers.get("format") != FORMAT:
        raise Undecodable("another format")
    try:
        seen = _decoder.decode(record.value or b"")
        return seen, _reference(headers.get("content")), record.key.decode("ascii"), headers.get(OWNER, b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Undecodable(str(error)) from error


def _reference(header: bytes | None) -> ContentRef:
    """Raises Undecodable; a reference without offsets is none."""
    ref = decode(header or b"", ContentRef)
    if not ref.offsets:
        raise Undecodable("no offsets")
    return ref
