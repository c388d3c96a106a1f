"""Rule 3 as a model: owners that come and go, what they wrote landing late and in any order, compaction
between.

The log is a list, an owner the real Ledger with the real moves and merges around it, in the order in which
shard, partition and settlement use them. What the primary took and what people asked for is noted beside it:
no mail is lost, what is held stays held, what is deleted stays deleted, and outcomes add up.
"""

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from libs.log.contract import Record
from libs.mail.codec import decode, mail_of
from libs.mail.records import (
    ContentRef,
    Delete,
    Hold,
    Mail,
    MailRequest,
    Progress,
    QueueEntry,
    Release,
    Retry,
    State,
)
from libs.mail.states import merged, move
from services.deliver.asked import Ended, Moved, meaning
from services.deliver.ledger import Ledger, Todo
from services.deliver.waiting import Place
from tests.deliver.test_ledger import RECIPIENTS, record

EVERYBODY = set(range(len(RECIPIENTS)))
MAILS = 2  # more would only meet less often


class Write(NamedTuple):
    """A state (None: the tombstone) on its way to the log. `request`: it is the word of a person."""

    id: str
    progress: Progress | None
    owner: bytes
    request: bool = False


class Written:
    """The partition. Compaction keeps the newest record of each key, and later forgets tombstones."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.end = 0

    def append(self, write: Write) -> int:
        self.records.append(record(self.end, write.id, write.progress, write.owner))
        self.end += 1
        return self.end - 1

    def at(self, offset: int) -> Progress | None:
        """None: compacted away."""
        for each in self.records:
            if each.offset == offset:
                return decode(each.value or b"", QueueEntry).progress
        return None

    def compact(self, before: int, *, tombstones: bool) -> None:
        """What is younger than `before` neither goes nor has anything go (min.compaction.lag.ms)."""
        newest = {each.key: each.offset for each in self.records if each.offset < before}
        self.records = [
            each
            for each in self.records
            if each.offset >= before
            or (newest[each.key] == each.offset and (each.value is not None or not tombstones))
        ]


class Owner:
    """What a shard does with the ledger. `out`: mails whose write is under way; `writes`: these writes."""

    def __init__(self, log: Written, mark: bytes) -> None:
        self.log, self.mark, self.ledger = log, mark, Ledger(mark)
        self.scan_to = log.end
        self.writes: dict[str, Write] = {}
        self.again: set[str] = set()  # rewrites that wait for their mail
        self.claimed = True

    def read(self, most: int) -> None:
        for each in [each for each in self.log.records if each.offset >= self.ledger.position][:most]:
            self.ledger.position = each.offset + 1
            id_ = each.key.decode()
            match self.ledger.fold(each, 0.0):
                case Todo.BURY if self.claimed:
                    self.log.append(Write(id_, None, self.mark))
                case Todo.MERGE if self.claimed:
                    self.rewrite(id_)
        behind = any(self.ledger.position <= each.offset < self.scan_to for each in self.log.records)
        if not self.ledger.caught_up and not behind:
            for id_ in self.ledger.scanned():
                if self.claimed:
                    self.rewrite(id_)

    @property
    def at_end(self) -> bool:
        return all(each.offset < self.ledger.position for each in self.log.records)

    def take(self, id_: str) -> Progress | None:
        """The state of a mail that nobody is busy with, now out; None where that cannot be had."""
        known = self.ledger.index.get(id_)
        if known is None or id_ in self.writes or not self.ledger.caught_up:
            return None
        own = self.log.at(known.offset)
        if own is None or self.ledger.index.take_this(id_) is None:
            return None
        return own

    def current(self, id_: str, own: Progress) -> Progress:
        foreign = self.ledger.foreign.pop(id_, None)
        return own if foreign is None else merged(own, foreign)

    def rewrite(self, id_: str) -> None:
        own = self.take(id_)
        if own is None:
            self.again.add(id_)
            return
        self.again.discard(id_)
        self.begin(id_, self.current(id_, own))

    def begin(self, id_: str, progress: Progress, *, request: bool = False) -> None:
        ended = set(progress.done) == EVERYBODY
        self.writes[id_] = Write(id_, None if ended else progress, self.mark, request)

    def land(self, id_: str) -> Write:
        """The write is acknowledged; a former owner, whose shard is gone, learns nothing from it."""
        write = self.writes.pop(id_)
        offset = self.log.append(write)
        if write.progress is None:
            self.ledger.end(id_)
        else:
            self.ledger.wrote(id_, offset, write.progress, ContentRef(0, (7,), 10))
        self.ledger.index.again(id_)
        if id_ in self.again or id_ in self.ledger.foreign:
            self.rewrite(id_)
        return write


class Model(RuleBasedStateMachine):
    """See the file's docstring."""

    @initialize()
    def begin(self) -> None:
        self.log = Written()
        self.owners = 1
        self.owner = Owner(self.log, b"owner0")
        self.former: list[Owner] = []
        self.mails: list[str] = []
        self.taken: dict[str, set[int]] = {}  # what the primary took
        self.noted: dict[str, set[int]] = {}  # as far as that is on the log
        self.deleted: set[str] = set()
        self.asked: dict[str, tuple[int, type[MailRequest]]] = {}  # the newest word on the log
        self.requests = 0

    @precondition(lambda self: len(self.mails) < MAILS)
    @rule()
    def ingest(self) -> None:
        id_ = f"m{len(self.mails)}"
        self.mails.append(id_)
        self.taken[id_], self.noted[id_] = set(), set()
        self.log.append(Write(id_, Progress(), b""))

    @rule(most=st.sampled_from([1, 3, 1000]))
    def read(self, most: int) -> None:
        self.owner.read(most)

    @precondition(lambda self: self.former)
    @rule(data=st.data())
    def read_late(self, data: st.DataObject) -> None:
        """One that does not know yet that it owns nothing any more."""
        data.draw(st.sampled_from(self.former)).read(1000)

    @precondition(lambda self: self.mails)
    @rule(data=st.data(), taken=st.sets(st.sampled_from(sorted(EVERYBODY))))
    def attempt(self, data: st.DataObject, taken: set[int]) -> None:
        """The primary takes it for some of those who are open, and the outcome is on its way to the log. A
        former owner's attempts run on after their final dot."""
        id_ = data.draw(st.sampled_from(self.mails))
        owner = data.draw(st.sampled_from([self.owner, *self.former[-2:]]))
        if owner.ledger.index.place(id_) not in (Place.READY, Place.SLOW):
            return
        own = owner.take(id_)
        if own is None:
            return
        taken = taken - {*own.done}
        if not owner.claimed and not taken:
            owner.ledger.index.again(id_)
            return
        self.taken[id_] |= taken
        progress = owner.current(id_, own)
        to = State.DEFERRED if progress.state is State.QUEUED else progress.state
        attempts, due = progress.attempts + 1, 50.0 if to is State.DEFERRED else 0.0
        owner.begin(id_, move(progress, to, 9.0, attempts=attempts, next_attempt=due, done=taken))

    @precondition(lambda self: self.mails)
    @rule(data=st.data(), verb=st.sampled_from([Hold, Release, Retry, Delete]))
    def ask(self, data: st.DataObject, verb: type[MailRequest]) -> None:
        """A person's word, read by the owner; where the mail is busy it is not applied."""
        id_ = data.draw(st.sampled_from(self.mails))
        self.requests += 1
        if id_ in self.owner.ledger.foreign:
            return
        own = self.owner.take(id_)
        if own is None:
            return
        request = verb("r", "office.example", id_, "a test")
        match meaning(request, mail(id_), own, self.requests, 9.0):
            case Moved(progress):
                self.owner.begin(id_, progress, request=True)
            case Ended():
                self.owner.writes[id_] = Write(id_, None, self.owner.mark, request=True)
            case _:
                self.owner.ledger.index.again(id_)
                return
        self.owner.writes[id_] = self.owner.writes[id_]._replace(request=True)

    @precondition(lambda self: self.owner.writes)
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        self.note(self.owner.land(data.draw(st.sampled_from(sorted(self.owner.writes)))))

    @rule()
    def change_owner(self) -> None:
        self.owner.claimed = False  # rule 4: from now on it begins no write but that of an acceptance
        self.former.append(self.owner)
        self.owner = Owner(self.log, f"owner{self.owners}".encode())
        self.owners += 1

    @precondition(lambda self: any(each.writes for each in self.former))
    @rule(data=st.data())
    def land_late(self, data: st.DataObject) -> None:
        """What a former owner had handed over before its claim ended; or an acceptance that it may write
        after."""
        former = data.draw(st.sampled_from([each for each in self.former if each.writes]))
        write = former.writes.pop(data.draw(st.sampled_from(sorted(former.writes))))
        self.log.append(write)
        self.note(write)

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """An hour after: no scan takes so long. Tombstones go two days later: then nothing of a former owner
        is on its way any more."""
        quiet = not any(each.writes for each in self.former)
        read = self.owner.ledger.caught_up and self.owner.at_end
        before = data.draw(st.integers(0, self.owner.scan_to))
        self.log.compact(before, tombstones=quiet and read)

    def note(self, write: Write) -> None:
        if write.progress is None:
            if write.request:
                self.deleted.add(write.id)
            return
        self.noted[write.id] |= set(write.progress.done)
        if write.request:
            newest = self.asked.get(write.id, (-1, Hold))
            verb = Hold if write.progress.state is State.HELD else Release
            self.asked[write.id] = max(newest, (write.progress.request, verb), key=lambda each: each[0])

    @invariant()
    def nobody_is_done_who_was_not_taken(self) -> None:
        for each in self.log.records:
            if each.value is not None:
                progress = decode(each.value, QueueEntry).progress
                assert set(progress.done) <= self.taken[each.key.decode()]

    def teardown(self) -> None:
        """Everything lands, everything is read: what is left is as rule 3 has it, for the owner and for the
        next."""
        for former in self.former:
            for id_ in sorted(former.writes):
                write = former.writes.pop(id_)
                self.log.append(write)
                self.note(write)
        for _ in range(50):
            self.owner.read(1000)
            for id_ in sorted(self.owner.writes):
                self.note(self.owner.land(id_))
            for id_ in sorted(self.owner.again):
                self.owner.rewrite(id_)
            if not self.owner.writes and self.owner.at_end:
                break
        else:
            raise AssertionError("the owner does not come to rest")
        self.log.compact(self.log.end, tombstones=True)
        after = Owner(self.log, b"after")
        after.read(10_000)
        assert not after.writes, "the owner before had not written the sum"
        assert {each.id for each in after.ledger.index} == {each.id for each in self.owner.ledger.index}
        for id_ in self.mails:
            self.check(id_, after)

    def check(self, id_: str, after: Owner) -> None:
        known = after.ledger.index.get(id_)
        if known is None:
            assert id_ in self.deleted or self.taken[id_] == EVERYBODY, "lost"
            return
        assert id_ not in self.deleted, "deleted, and there again"
        progress = self.log.at(known.offset)
        assert progress is not None
        assert self.noted[id_] <= set(progress.done), "an outcome that was on the log is forgotten"
        if id_ in self.asked:
            held = self.asked[id_][1] is Hold
            assert (progress.state is State.HELD) is held, "the newest word of a person does not stand"


def mail(id_: str) -> Mail:
    return mail_of(decode(record(0, id_).value or b"", QueueEntry))


Model.TestCase.settings = settings(deadline=None, max_examples=600, stateful_step_count=50)
TestRuleThree = Model.TestCase
