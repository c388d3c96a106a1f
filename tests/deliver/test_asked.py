"""What a request means for a mail, by drawing: once, in the order of the log, and never back (rule 3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.records import (
    Basis,
    Bounce,
    Cause,
    Delete,
    Hold,
    Kind,
    Mail,
    MailRequest,
    Progress,
    Recipient,
    Redeliver,
    Release,
    Retry,
    State,
    Which,
)
from services.deliver.asked import FROM, Applied, Ended, GivenUp, Moved, Unchanged, concerns, meaning, perhaps
from services.deliver.waiting import Waiting

ANN, BOB = "Ann@office.example", "bob@office.example"
MAIL = Mail(
    "a", "office.example", "office.example", Kind.RELAYED, "Eve@Sender.example",
    (Recipient(ANN, Basis.DELIVERABLE), Recipient(BOB, Basis.DELIVERABLE)), b"", 5.0, True,
)  # fmt: skip
VERBS: list[type[MailRequest]] = [Retry, Hold, Release, Redeliver, Bounce, Delete]

verbs = st.sampled_from(VERBS)
progresses = st.builds(
    lambda state, attempts, done, request: Progress(
        state, attempts, 9.0 if state is State.DEFERRED else 0.0, done=done, request=request
    ),
    st.sampled_from(State),
    st.integers(0, 5),
    st.sampled_from([(), (0,), (1,)]),
    st.integers(-1, 9),
)


def of(verb: type[MailRequest]) -> MailRequest:
    return verb("r", "office.example", "a", "a test")


@given(verbs, progresses, st.integers(0, 12))
def test_a_request_is_applied_once_and_in_order(
    verb: type[MailRequest], progress: Progress, offset: int
) -> None:
    """What it changes keeps its offset; read again it is applied already; an older one does nothing; nobody
    who is done is touched. Only a verb that is for a state moves a mail from it."""
    got = meaning(of(verb), MAIL, progress, offset, 100.0)
    if verb is Delete:
        assert got == Ended()
    elif progress.request == offset:
        assert got == Applied()
    elif progress.request > offset or progress.state not in FROM[verb]:
        assert isinstance(got, Unchanged)
    else:
        assert isinstance(got, GivenUp if verb is Bounce else Moved)
        after = got.progress
        assert (after.request, after.done, after.attempts) == (offset, progress.done, progress.attempts)
        assert meaning(of(verb), MAIL, after, offset, 200.0) == Applied()
        for older in VERBS[:-1]:
            assert isinstance(meaning(of(older), MAIL, after, offset - 1, 200.0), Unchanged)
        if verb is Bounce:
            assert {*after.failed, *after.done} == {0, 1}
            assert after.cause is Cause.GIVEN_UP
        if verb is Retry:
            assert (after.state, after.since, after.next_attempt) == (progress.state, progress.since, 0.0)


@pytest.mark.parametrize(
    ("which", "done", "about"),
    [
        (Which(), (), True),
        (Which(sender="eve@sender.example"), (), True),
        (Which(sender="@sender.example"), (), True),
        (Which(sender="@example"), (), False),
        (Which(sender="<>"), (), False),
        (Which(recipient="ann@office.example"), (), True),
        (Which(recipient="ann@office.example"), (0,), False),
        (Which(sender="@sender.example", recipient="joe@office.example"), (), False),
    ],
)
def test_which_mail(which: Which, done: tuple[int, ...], about: bool) -> None:
    """All that is given holds; a recipient who is done is not looked at."""
    assert concerns(which, MAIL, Progress(done=done)) is about


def test_only_mail_that_arrived_before() -> None:
    """By the log's time of the request and of the content; of another domain not at all."""

    def waiting(arrived: float, domain: str = "office.example") -> Waiting:
        return Waiting(arrived, "a", domain, domain, Kind.RELAYED, State.QUEUED, 0.0, 1, 1, 1, 1, 1)

    every = Hold("r", "office.example", "", "a test")
    assert perhaps(every, waiting(99.0), 100.0)
    assert not perhaps(every, waiting(100.0), 100.0)
    assert not perhaps(every, waiting(99.0, "other.example"), 100.0)
    assert perhaps(Hold("r", "", "", "a test"), waiting(99.0, "other.example"), 100.0)
    old = Hold("r", "office.example", "", "a test", Which(older_s=50.0))
    assert not perhaps(old, waiting(60.0), 100.0)
    assert perhaps(old, waiting(49.0), 100.0)
    assert not perhaps(Release("r", "office.example", "", "a test"), waiting(1.0), 100.0)
