"""Imported recipients: whose turn it is, when a turn is due, how it ends; what the operator says becomes
records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.knowledge import OPERATOR, Allowed, Forgotten, Imported, RecipientStatus, RecipientTry, Status
from services.verify.finding import Deliverable, Finding, Undeliverable, Unverifiable
from services.verify.learning import Circumstances, Known, Learnt, is_due, learn, says_nothing
from services.verify.orders import carried_out, sentence
from services.verify.warming import Warming, end, imported
from services.verify.warming import is_due as turn_due

NOW = 1_800_000_000.0
ANN, KEY = "ann@office.example", b"ann@office.example"
NOBODY = Known(ANN, None, None)
WAITS = RecipientTry(ANN, 0.0, "", imported=NOW - 10)
YES, NO = Deliverable("250 ok"), Undeliverable("550 5.1.1 no")
LATER = Unverifiable("greylisted", blocked=False)


def status(
    kind: Status = Status.DELIVERABLE, confirmed: float = NOW - 100, source: str = "callout"
) -> RecipientStatus:
    return RecipientStatus(ANN, kind, NOW - 1000, confirmed, source)


WORD = status(confirmed=0.0, source=OPERATOR)


def ask(known: Known, finding: Finding) -> Learnt:
    return learn(known, finding, Circumstances(NOW, "mx1.backup.example"))


def test_new_ones_come_first() -> None:
    """Then those that were asked about in vain, the longest ago first; who is known or forgotten is out."""
    waiting = Warming()
    for number in range(4):
        waiting.fold(b"%d@a.example" % number, RecipientTry(f"{number}@a.example", 0.0, "", imported=NOW))
    waiting.fold(b"0@a.example", RecipientTry("0@a.example", NOW + 1, "greylisted", imported=NOW))
    waiting.fold(b"1@a.example", RecipientTry("1@a.example", NOW + 2, "deferred", imported=NOW))
    waiting.fold(b"0@a.example", RecipientTry("0@a.example", NOW + 3, "deferred", imported=NOW))
    waiting.fold(b"2@a.example", None)
    assert [key for key, _ in waiting.turns("a.example")] == [b"3@a.example", b"1@a.example", b"0@a.example"]
    assert list(waiting.turns("b.example")) == []
    for number in (0, 1, 3):
        waiting.fold(b"%d@a.example" % number, RecipientTry("x@a.example", NOW, "up"))
    assert waiting.domains() == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.sampled_from(["a.example", "b.example"]), st.booleans(), st.booleans()
        )
    )
)
def test_everybody_who_waits_has_a_turn(folds: list[tuple[int, str, bool, bool]]) -> None:
    """Whatever was written before, the newest record of a mailbox decides, and nobody has two turns."""
    waiting, newest = Warming(), dict[bytes, tuple[str, bool]]()
    for number, domain, waits, asked in folds:
        key = f"{number}@{domain}".encode()
        tried = RecipientTry(key.decode(), NOW if asked else 0.0, "", imported=NOW if waits else 0.0)
        waiting.fold(key, tried)
        newest[key] = domain, waits
    for domain in ("a.example", "b.example"):
        turns = [key for key, _ in waiting.turns(domain)]
        assert len(turns) == len(set(turns))
        assert set(turns) == {key for key, (of, waits) in newest.items() if waits and of == domain}
        assert (domain in waiting.domains()) is bool(turns)


@pytest.mark.parametrize(
    ("tried", "due"),
    [
        (WAITS, True),
        (RecipientTry(ANN, NOW - 899, "greylisted", imported=NOW - 1000), False),
        (RecipientTry(ANN, NOW - 900, "greylisted", imported=NOW - 1000), True),
        (RecipientTry(ANN, NOW - 5, "unreachable", imported=NOW - 2), True),  # tried before it was imported
        (RecipientTry(ANN, NOW + 5000, "greylisted", imported=NOW), True),  # the clock was set back
    ],
)
def test_a_turn_is_due(tried: RecipientTry, due: bool) -> None:
    """At once after the import, then every 15 minutes."""
    assert turn_due(tried, NOW) is due


@pytest.mark.parametrize(
    ("known", "hold", "outcome"),
    [
        (Known(ANN, None, WAITS), "", None),
        (Known(ANN, None, WAITS), "blocked", None),
        (Known(ANN, None, WAITS), "catch_all", "catch_all"),
        (Known(ANN, None, WAITS), "no domain", "no domain"),
        (Known(ANN, status(confirmed=NOW - 100), WAITS), "", None),  # what was known then is due
        (Known(ANN, status(confirmed=NOW - 5), WAITS), "", "deliverable"),  # somebody asked meanwhile
        (Known(ANN, WORD, WAITS), "", "deliverable"),
        (Known(ANN, None, RecipientTry(ANN, 0.0, "", imported=NOW - 8 * 86_400)), "", "unanswered"),
        (Known(ANN, None, RecipientTry(ANN, NOW, "up", imported=NOW - 8 * 86_400)), "", "up"),
    ],
)
def test_an_import_ends(known: Known, hold: str, outcome: str | None) -> None:
    """With an answer, where none can come, and after a week."""
    ended = end(known, hold, NOW)
    assert (None if ended is None else ended.last_outcome) == outcome
    assert ended is None or not ended.imported


def test_an_answer_ends_an_import() -> None:
    """The status is written first: who waits for it must not see an end without an answer. In vain: it goes
    on waiting."""
    for finding, kind in ((YES, Status.DELIVERABLE), (NO, Status.UNDELIVERABLE)):
        first, last = ask(Known(ANN, None, WAITS), finding).records
        assert isinstance(first, RecipientStatus)
        assert first.status is kind
        assert isinstance(last, RecipientTry)
        assert says_nothing(last)
    learnt = ask(Known(ANN, None, WAITS), LATER)
    assert learnt.tried == RecipientTry(ANN, NOW, "greylisted", imported=NOW - 10)
    assert not says_nothing(learnt.tried)
    braked = learn(Known(ANN, None, WAITS), NO, Circumstances(NOW, "mx1.backup.example", braked=True))
    assert braked.tried == RecipientTry(ANN, NOW, "braked", imported=NOW - 10)


@pytest.mark.parametrize("finding", [YES, NO])
def test_the_operators_word_stands(finding: Finding) -> None:
    """No callout changes it or makes it doubtful, and none is due."""
    learnt = ask(Known(ANN, WORD, None), finding)
    assert learnt == Learnt(WORD, None)
    assert not is_due(Known(ANN, WORD, RecipientTry(ANN, NOW - 1000, "unreachable")), None, NOW)


def test_what_the_operator_says() -> None:
    """An import adds a wish to what is known, or echoes it; `allow` is a status that was never confirmed;
    `forget` leaves nothing."""
    told = Imported(ANN, "root")
    assert carried_out(told, KEY, NOBODY, NOW, due=True) == [
        (b"try:" + KEY, RecipientTry(ANN, 0.0, "", imported=NOW))
    ]
    known = Known(ANN, status(), RecipientTry(ANN, NOW - 9, "deferred", NOW - 50, "mx1"))
    assert carried_out(told, KEY, known, NOW, due=False) == [(KEY, status())]
    ((_, again),) = carried_out(told, KEY, known, NOW, due=True)
    assert again == RecipientTry(ANN, NOW - 9, "deferred", NOW - 50, "mx1", NOW)
    assert again == imported(known, NOW)

    allowed = [(b"try:" + KEY, None), (KEY, RecipientStatus(ANN, Status.DELIVERABLE, NOW, 0.0, OPERATOR))]
    assert carried_out(Allowed(ANN, "root"), KEY, known, NOW, due=True) == allowed
    standing = Known(ANN, WORD, None)
    assert carried_out(Allowed(ANN, "root"), KEY, standing, NOW, due=False)[1] == (KEY, WORD)
    assert carried_out(Forgotten(ANN, "root"), KEY, known, NOW, due=True) == [
        (b"try:" + KEY, None),
        (KEY, None),
    ]


def test_sentences() -> None:
    """An event says what changed, and nothing where nothing did."""
    known, word = Known(ANN, status(Status.UNDELIVERABLE), None), Known(ANN, WORD, None)
    assert sentence(Allowed(ANN, "root"), known) == "undeliverable -> deliverable: allowed by root"
    assert sentence(Forgotten(ANN, "root"), known) == "undeliverable -> unknown: forgotten by root"
    assert sentence(Allowed(ANN, "root"), word) == ""
    assert sentence(Forgotten(ANN, "root"), NOBODY) == ""
    assert sentence(Imported(ANN, "root"), NOBODY) == ""
