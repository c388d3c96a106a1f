"""What a finding teaches about a recipient, and when it is asked about again."""

import pytest

from libs.mail.knowledge import Health, PrimaryState, RecipientStatus, RecipientTry, Status
from services.verify.finding import Deliverable, Finding, Undeliverable, Unverifiable
from services.verify.learning import (
    DAY_S,
    Circumstances,
    Known,
    Lifetimes,
    again_after,
    is_due,
    learn,
    next_probe,
    says_nothing,
    worth_writing,
)

T = Lifetimes()
ANN = "ann@office.example"
NOW = 1_800_000_000.0
NO, YES = Undeliverable("550 5.1.1 no"), Deliverable("250 ok")
UNREACHABLE = Unverifiable("unreachable", blocked=False)


def status(kind: Status, age_s: float = 100.0) -> RecipientStatus:
    return RecipientStatus(ANN, kind, NOW - 1000, NOW - age_s)


def doubt(age_s: float, host: str = "mx2.backup.example") -> RecipientTry:
    return RecipientTry(ANN, NOW - age_s, "contradicted", NOW - age_s, host)


def at(now: float = NOW, **more: object) -> Circumstances:
    return Circumstances(now, "mx1.backup.example", **more)  # type: ignore[arg-type]


def test_first_answers() -> None:
    """A recipient that nothing was known of gets the status that the primary says."""
    for finding, kind in ((YES, Status.DELIVERABLE), (NO, Status.UNDELIVERABLE)):
        learnt = learn(Known(ANN, None, None), finding, at())
        assert learnt.status is not None
        assert (learnt.status.status, learnt.status.since, learnt.status.confirmed) == (kind, NOW, NOW)
        assert learnt.tried is None


def test_a_confirmation_keeps_since() -> None:
    """Saying the same again moves `confirmed` only."""
    learnt = learn(Known(ANN, status(Status.DELIVERABLE), None), YES, at())
    assert learnt.status is not None
    assert (learnt.status.since, learnt.status.confirmed) == (NOW - 1000, NOW)


def test_cannot_verify_is_no_status() -> None:
    """A time-out writes when it was tried and why, and nothing else, whatever was known."""
    for known in (None, status(Status.DELIVERABLE), status(Status.UNDELIVERABLE)):
        learnt = learn(Known(ANN, known, None), UNREACHABLE, at())
        assert learnt.status is None
        assert learnt.tried == RecipientTry(ANN, NOW, "unreachable")


@pytest.mark.parametrize(
    ("age_s", "control", "braked", "flips"),
    [
        (899, True, False, False),
        (900, True, False, True),
        (DAY_S - 1, None, False, False),
        (DAY_S, None, False, True),
        (30 * DAY_S, False, False, False),  # the primary denies everybody
        (30 * DAY_S, True, True, False),  # the callout brake is pulled
    ],
)
def test_a_flip_needs_two_witnesses(age_s: float, control: bool | None, braked: bool, flips: bool) -> None:
    """Once deliverable: two noes 15 min apart beside an accepted control, or 24 h apart without one."""
    known = Known(ANN, status(Status.DELIVERABLE), doubt(age_s))
    learnt = learn(known, NO, at(control=control, braked=braked))
    assert learnt.tried is not None
    assert learnt.pending is not flips
    if flips:
        assert learnt.status is not None
        assert (learnt.status.status, learnt.status.since) == (Status.UNDELIVERABLE, NOW)
        assert learnt.records == (learnt.status, learnt.tried), "the doubt ends after the flip, not before"
        assert learnt.tried.against_since == 0
    else:
        assert learnt.status is None
        assert (learnt.tried.against_since, learnt.tried.against_host) == (NOW - age_s, "mx2.backup.example")


def test_the_first_no_is_only_a_doubt() -> None:
    """A recipient known deliverable stays so; the contradiction is remembered with its host."""
    learnt = learn(Known(ANN, status(Status.DELIVERABLE), None), NO, at(control=True))
    assert learnt.pending
    assert learnt.records == (RecipientTry(ANN, NOW, "contradicted", NOW, "mx1.backup.example"),)


def test_a_yes_ends_the_doubt() -> None:
    """One acceptance forgets the contradiction, and does so before the status is written again."""
    learnt = learn(Known(ANN, status(Status.DELIVERABLE), doubt(50)), YES, at())
    assert learnt.tried == RecipientTry(ANN, NOW, "deliverable")
    assert learnt.records == (learnt.tried, learnt.status)
    assert not learnt.pending


def test_a_timeout_keeps_the_doubt() -> None:
    """A callout without result between two witnesses does not start the count again."""
    learnt = learn(Known(ANN, status(Status.DELIVERABLE), doubt(50, "h")), UNREACHABLE, at())
    assert learnt.tried == RecipientTry(ANN, NOW, "unreachable", NOW - 50, "h")


def test_a_doubt_goes_with_what_it_doubts() -> None:
    """Who was forgotten after a year is unknown; that he was contradicted before says nothing any more."""
    for known, since in ((status(Status.DELIVERABLE), NOW - 50), (None, 0.0)):
        learnt = learn(Known(ANN, known, doubt(50)), UNREACHABLE, at())
        assert learnt.tried is not None
        assert learnt.tried.against_since == since


@pytest.mark.parametrize("finding", [YES, NO])
def test_an_answer_ends_what_a_worse_mx_said(finding: Finding) -> None:
    """Else, with a clock that jumps, it would be taken for what was said after it."""
    elsewhere = RecipientTry(ANN, NOW + 50, "unreachable", elsewhere="undeliverable")
    learnt = learn(Known(ANN, None, elsewhere), finding, at())
    assert learnt.tried is not None
    assert says_nothing(learnt.tried), "its record goes"


def test_the_brake_writes_no_negative() -> None:
    """While the callout brake is pulled nobody becomes undeliverable; a yes is still written."""
    learnt = learn(Known(ANN, None, None), NO, at(braked=True))
    assert (learnt.status, learnt.tried) == (None, RecipientTry(ANN, NOW, "braked"))
    assert learn(Known(ANN, None, None), YES, at(braked=True)).status is not None


def primary(health: Health) -> PrimaryState:
    return PrimaryState("office.example", health, NOW - 10)


def test_when_a_status_is_asked_again() -> None:
    """Deliverable after 7 d, undeliverable after 3 h; while the primary is away nothing expires."""
    yes, no = status(Status.DELIVERABLE, 0), status(Status.UNDELIVERABLE, 0)
    for there in (None, primary(Health.UP), primary(Health.REFUSING)):
        assert next_probe(yes, there) == NOW + 7 * DAY_S
        assert next_probe(no, there) == NOW + 3 * 3600
    for away in (primary(Health.DOWN), primary(Health.DEFERRING)):
        assert next_probe(yes, away) is next_probe(no, away) is None


@pytest.mark.parametrize(
    ("known", "tried", "due"),
    [
        (None, None, True),
        (None, RecipientTry(ANN, NOW - 59, "unreachable"), False),
        (None, RecipientTry(ANN, NOW - 60, "unreachable"), True),
        (None, RecipientTry(ANN, NOW + 500, "unreachable"), True),  # the clock was set back
        (status(Status.DELIVERABLE), None, False),
        (status(Status.UNDELIVERABLE, 3 * 3600), None, True),
        (status(Status.UNDELIVERABLE, 3 * 3600), RecipientTry(ANN, NOW - 10, "unreachable"), False),
        (status(Status.UNDELIVERABLE, 3 * 3600), RecipientTry(ANN, NOW - 4 * 3600, "deferred"), True),
        (status(Status.DELIVERABLE), doubt(10), False),
        (status(Status.DELIVERABLE), doubt(900), True),
    ],
)
def test_what_is_worth_a_callout(
    known: RecipientStatus | None, tried: RecipientTry | None, due: bool
) -> None:
    """Within 60 s of a try without result, and as long as a status is valid, what is known is the answer."""
    assert is_due(Known(ANN, known, tried), None, NOW) is due


def test_what_is_asked_again_in_the_background() -> None:
    """Greylisting a few times, a contradiction until it is settled, nothing else."""
    unknown = Known(ANN, None, None)
    grey = learn(unknown, Unverifiable("greylisted", blocked=False), at())
    assert again_after(grey, 0) == T.greylist_s
    assert again_after(grey, 5) is None
    assert again_after(learn(unknown, UNREACHABLE, at()), 0) is None
    contradicted = learn(Known(ANN, status(Status.DELIVERABLE), None), NO, at())
    assert again_after(contradicted, 0) == T.witness_s
    assert again_after(contradicted, 99) == T.witness_s
    assert again_after(learn(unknown, YES, at()), 0) is None


def test_deliveries_write_little() -> None:
    """A delivery to a known recipient is written once a day at most; a change always."""
    for age_s, worth in ((100, False), (DAY_S, True)):
        known = Known(ANN, status(Status.DELIVERABLE, age_s), None)
        assert worth_writing(known, learn(known, YES, at(source="delivery"))) is worth
    known = Known(ANN, status(Status.UNDELIVERABLE), None)
    assert worth_writing(known, learn(known, YES, at(source="delivery")))
    known = Known(ANN, status(Status.DELIVERABLE), None)
    assert worth_writing(known, learn(known, NO, at(source="delivery")))
