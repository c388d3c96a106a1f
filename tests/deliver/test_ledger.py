"""Rule 3 on paper: records in any order, and what the owner has to do about each."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from libs.log.contract import Record
from libs.mail.codec import encode, new_entry, queue_headers
from libs.mail.records import Basis, ContentRef, Kind, Mail, Progress, QueueEntry, Recipient, State
from services.deliver.ledger import OWNER, Ledger, Todo

OURS, THEIRS = b"ours", b"theirs"
FRESH = Progress()
RECIPIENTS = tuple(Recipient(f"{name}@office.example", Basis.DELIVERABLE) for name in ("ann", "bob"))


def record(
    offset: int,
    key: str,
    progress: Progress | None = FRESH,
    owner: bytes = b"",
    *,
    content: int = 7,
    reference: bool = True,
    value: bytes | None = None,
) -> Record:
    """A record of the queue; `progress` None: a tombstone; `value`: instead of a proper one."""
    mail = Mail(
        key, "office.example", "office.example", Kind.RELAYED, "eve@sender.example",
        RECIPIENTS, b"", 5.0, True,
    )  # fmt: skip
    entry = None if progress is None else encode(QueueEntry(Raw(encode(mail)), progress))
    headers = queue_headers(ContentRef(0, (content,), 10)) if reference and progress is not None else ()
    if owner:
        headers = (*headers, (OWNER, owner))
    return Record("queue", 0, offset, key.encode(), value or entry, headers, 1.0)


def caught_up(*before: Record) -> Ledger:
    ledger = Ledger(OURS)
    for each in before:
        ledger.fold(each, 0.0)
    ledger.scanned()
    return ledger


DEFERRED = Progress(State.DEFERRED, attempts=1, next_attempt=50.0)


def test_new_mail() -> None:
    """A record as ingest writes it is a mail to deliver, before and after the scan."""
    ledger = Ledger(OURS)
    assert ledger.fold(record(0, "a"), 0.0) is Todo.ADDED
    ledger.scanned()
    assert ledger.fold(record(1, "b"), 0.0) is Todo.ADDED
    assert [mail.id for mail in ledger.index] == ["a", "b"]


def test_a_loop_is_held_from_the_first() -> None:
    """What ingest holds is no stale state of another owner: it is kept, and not due, before and after the
    scan; read twice it undoes no release. With an owner's mark it is a state like any other."""
    held = Progress(State.HELD, since=5.0)
    ledger = Ledger(OURS)
    assert ledger.fold(record(0, "a", held), 0.0) is Todo.ADDED
    ledger.scanned()
    assert ledger.fold(record(1, "b", held), 0.0) is Todo.ADDED
    assert [mail.state for mail in ledger.index] == [State.HELD, State.HELD]
    assert ledger.index.next_due("office.example") is None
    released = Progress(request=3, since=6.0)
    assert ledger.fold(record(2, "b", released, OURS), 0.0) is Todo.NOTHING
    assert ledger.fold(record(3, "b", held), 0.0) is Todo.NOTHING
    assert ledger.index.next_due("office.example") == 0.0
    assert ledger.fold(record(4, "c", held, THEIRS), 0.0) is Todo.BURY


def test_tombstones() -> None:
    """A record behind its key's tombstone is buried again, in the scan and after, for an hour."""
    ledger = Ledger(OURS)
    ledger.fold(record(0, "a"), 0.0)
    assert ledger.fold(record(1, "a", None), 0.0) is Todo.LEFT
    assert ledger.fold(record(2, "a"), 0.0) is Todo.BURY
    ledger.scanned()
    assert ledger.fold(record(3, "a", DEFERRED, THEIRS), 0.0) is Todo.BURY
    assert ledger.fold(record(4, "b", None), 3500.0) is Todo.NOTHING
    ledger.forget(3700.0)
    assert ledger.fold(record(5, "b"), 3700.0) is Todo.BURY
    assert len(ledger.index) == 0


def test_stale_state() -> None:
    """A later state of a mail that a caught-up table does not have is stale; our own, seen late, is not."""
    ledger = caught_up()
    assert ledger.fold(record(1, "a", DEFERRED, THEIRS), 0.0) is Todo.BURY
    assert ledger.fold(record(2, "b", DEFERRED, OURS), 0.0) is Todo.NOTHING
    assert len(ledger.index) == 0
    assert Ledger(OURS).fold(record(1, "a", DEFERRED, THEIRS), 0.0) is Todo.ADDED


def test_foreign_state() -> None:
    """A foreign state of a known mail is merged, also when the tail shows it after our own newer one."""
    ledger = caught_up(record(0, "a"))
    mine = Progress(State.DEFERRED, attempts=1, next_attempt=60.0, done=(0,))
    ledger.wrote("a", 9, mine, ContentRef(0, (7,), 10))
    assert (
        ledger.fold(record(8, "a", Progress(State.DEFERRED, 1, 50.0, done=(1,)), THEIRS), 0.0) is Todo.MERGE
    )
    assert ledger.foreign["a"].done == (1,)
    assert ledger.fold(record(9, "a", mine, OURS), 0.0) is Todo.NOTHING
    known = ledger.index.get("a")
    assert known is not None
    assert (known.offset, known.due) == (9, 60.0)


def test_two_owners_in_the_scan() -> None:
    """What two owners wrote of one mail adds up in the scan; one owner after the other needs nothing."""
    ledger = Ledger(OURS)
    ledger.fold(record(0, "a"), 0.0)
    ledger.fold(record(1, "a", Progress(State.DEFERRED, 1, 50.0, done=(0,)), THEIRS), 0.0)
    ledger.fold(record(2, "a", Progress(State.DEFERRED, 1, 60.0, done=(1,)), b"others"), 0.0)
    ledger.fold(record(3, "b", Progress(State.DEFERRED, 1, 50.0, done=(0,)), THEIRS), 0.0)
    ledger.fold(record(4, "b", Progress(State.DEFERRED, 2, 60.0, done=(0, 1)), b"others"), 0.0)
    assert ledger.scanned() == ["a"]
    assert ledger.foreign["a"].done == (0, 1)


def test_unreadable() -> None:
    """Rule 8: what cannot be decoded pins its content, without a reference it stops all truncation; a
    tombstone ends both."""
    ledger = caught_up(record(0, "a", content=30))
    assert ledger.fold(record(1, "b", value=b"\xc1", content=20), 0.0) is Todo.UNREADABLE
    assert ledger.lowest_content(0) == 20
    assert ledger.fold(record(2, "c", value=b"\xc1", reference=False), 0.0) is Todo.UNREADABLE
    assert ledger.blind == {b"c"}
    ledger.fold(record(3, "b", None), 0.0)
    ledger.fold(record(4, "c", None), 0.0)
    assert (ledger.lowest_content(0), ledger.blind) == (30, set())


def test_what_a_newer_version_wrote_of_a_known_mail() -> None:
    """Nobody acts on what was known before it: held there, done there, who knows? Its content stays pinned by
    both. A record that can be read has the mail back, one that our own attempt wrote late, too."""
    ledger = caught_up(record(0, "a", content=30))
    assert ledger.fold(record(1, "a", value=b"\xc1", content=40), 0.0) is Todo.UNREADABLE
    assert (ledger.index.get("a"), ledger.lowest_content(0)) == (None, 30)
    assert ledger.fold(record(2, "a", DEFERRED, OURS, content=40), 0.0) is Todo.ADDED
    assert ledger.index.get("a") is not None
    assert not ledger.unreadable(b"a")
    scanning = Ledger(OURS)
    for each in (record(0, "a", content=30), record(1, "a", value=b"\xc1"), record(2, "a", DEFERRED, THEIRS)):
        scanning.fold(each, 0.0)
    assert scanning.scanned() == []
    assert (known := scanning.index.get("a"))
    assert known.offset == 2
    scanning.fold(record(3, "a", value=b"\xc1"), 0.0)
    scanning.fold(record(4, "a", None), 0.0)
    assert (scanning.lowest_content(0), scanning.unreadable(b"a")) == (None, False)


def test_unknown_state() -> None:
    """A state that this version does not know is quarantined, never guessed."""
    odd = encode(QueueEntry(new_entry(_mail()).mail, Progress())).replace(b"\x80", b"\x81\xa5state\xa5vault")
    ledger = caught_up()
    assert ledger.fold(record(0, "a", value=odd), 0.0) is Todo.UNREADABLE


def _mail() -> Mail:
    return Mail("a", "office.example", "office.example", Kind.RELAYED, "", (), b"", 5.0, True)


def test_reference() -> None:
    """Until our own rewrite, every content reference that was seen counts for L; then that one alone."""
    ledger = caught_up(record(0, "a", content=30), record(1, "a", DEFERRED, THEIRS, content=90))
    assert (ledger.lowest_content(0), ledger.lowest_content(31)) == (30, 90)
    ledger.fold(record(2, "a", DEFERRED, OURS, content=120), 0.0)
    assert ledger.lowest_content(0) == 120


def test_a_reference_of_yesterday() -> None:
    """Rule 6: of two references the higher wins. A late state of an owner who did not know that the content
    had moved is merged into the record that does."""
    ledger = Ledger(OURS)
    ledger.fold(record(0, "a", content=30), 0.0)
    ledger.fold(record(1, "a", Progress(State.DEFERRED, 1, 50.0), THEIRS, content=90), 0.0)
    ledger.fold(record(2, "a", Progress(State.DEFERRED, 1, 60.0, done=(1,)), b"late", content=30), 0.0)
    known = ledger.index.get("a")
    assert known is not None
    assert (known.offset, known.first, known.content) == (1, 90, 30)
    assert ledger.scanned() == ["a"]
    assert ledger.foreign["a"].done == (1,)


def test_an_unreadable_record_that_moved() -> None:
    """Our own copy of it counts alone, and is not told of again."""
    ledger = caught_up(record(0, "b", value=b"\xc1", content=20))
    assert ledger.fold(record(1, "b", owner=OURS, value=b"\xc1", content=80), 0.0) is Todo.NOTHING
    assert ledger.lowest_content(0) == 80


def test_interrupted_notice() -> None:
    """A mail whose record has a DSN under way is known as unfinished until a state without it came."""
    ledger = caught_up(record(0, "a"), record(1, "a", Progress(dsn_id="dsn", failed=(0,)), THEIRS))
    assert ledger.unfinished == {"a"}
    ledger.fold(record(2, "a", Progress(done=(0,), attempts=1), OURS), 0.0)
    assert ledger.unfinished == set()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.booleans()), max_size=25))
def test_tombstones_stay_final(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever comes in whatever order: after a tombstone a key is never delivered again, and what has none
    and was fresh stays."""
    ledger = Ledger(OURS)
    gone: set[str] = set()
    alive: set[str] = set()
    for offset, (key, what, scanned) in enumerate(steps):
        if scanned and not ledger.caught_up:
            ledger.scanned()
        progress = None if what == 0 else Progress() if what < 3 else DEFERRED
        todo = ledger.fold(record(offset, key, progress, THEIRS if what == 4 else b""), 0.0)
        if what == 0:
            gone.add(key)
            alive.discard(key)
        elif key in gone:
            assert todo is Todo.BURY
        elif todo is Todo.ADDED:
            alive.add(key)
        assert {mail.id for mail in ledger.index} == alive


def test_an_unreadable_record_behind_its_tombstone() -> None:
    """A tombstone is final for what cannot be decoded, too: deleted mail does not come back to the vault."""
    ledger = caught_up(record(0, "b", value=b"\xc1", content=20))
    ledger.fold(record(1, "b", None), 0.0)
    assert ledger.fold(record(2, "b", owner=OURS, value=b"\xc1", content=80), 0.0) is Todo.BURY
    assert ledger.unread == {}
