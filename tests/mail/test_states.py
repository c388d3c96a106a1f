"""The legal moves of a mail, tried by drawing."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.records import Progress, State
from libs.mail.states import LEGAL, IllegalMove, bury, fresh, merged, move, open_recipients

indexes = st.lists(st.integers(0, 4), unique=True, max_size=5).map(lambda found: tuple(sorted(found)))


@st.composite
def progresses(draw: st.DrawFn) -> Progress:
    state = draw(st.sampled_from(State))
    done = draw(indexes)
    return Progress(
        state,
        attempts=draw(st.integers(0, 5)),
        next_attempt=draw(st.sampled_from([100.0, 200.0])) if state is State.DEFERRED else 0.0,
        done=done,
        failed=tuple(sorted(set(draw(indexes)) - set(done))),
        last_reply=draw(st.sampled_from(["", "450 later"])),
        dsn_id=draw(st.sampled_from(["", "a", "b"])),
        request=draw(st.integers(-1, 2)),
        since=draw(st.sampled_from([1.0, 2.0])),
    )


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_moves(old: State, new: State) -> None:
    """A move that the table does not list raises and names both states; one that it lists is made."""
    progress = Progress(old, since=5.0)
    if new in LEGAL[old]:
        after = move(progress, new, 9.0)
        assert (after.state, after.since) == (new, 5.0 if old is new else 9.0)
    else:
        with pytest.raises(IllegalMove, match=f"{old} -> {new}"):
            move(progress, new, 9.0)


def test_no_way_out_of_rest() -> None:
    """Held, parked and lost mail never becomes deferred by itself, and lost mail never anything."""
    for state in (State.HELD, State.PARKED, State.CONTENT_LOST):
        with pytest.raises(IllegalMove):
            move(Progress(state), State.DEFERRED, 1.0)
    assert LEGAL[State.CONTENT_LOST] == {State.CONTENT_LOST}


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 1}, {"request": 1}, {"next_attempt": 99.0}],
)
def test_nothing_goes_back(wrong: dict[str, int]) -> None:
    """Attempts and requests only grow; only a deferred mail has a next attempt."""
    with pytest.raises(IllegalMove):
        move(Progress(State.QUEUED, attempts=2, request=2), State.QUEUED, 1.0, **wrong)  # type: ignore[arg-type]


@given(progresses(), indexes, indexes)
def test_done_stays_done(old: Progress, done: tuple[int, ...], failed: tuple[int, ...]) -> None:
    """Who was delivered is never attempted again, and nobody is done and failed at once."""
    after = move(old, old.state, 9.0, next_attempt=old.next_attempt, done=done, failed=failed)
    assert set(after.done) == {*old.done, *done}
    assert set(after.failed) == set(failed) - set(after.done)
    assert not set(open_recipients(after, 5)) & {*after.done, *after.failed}


@given(progresses(), progresses())
def test_merge(one: Progress, other: Progress) -> None:
    """Rule 3: whoever merges, nothing done is lost, the later request decides, held stays held."""
    both = merged(one, other)
    assert merged(other, one) == both
    assert set(both.done) == {*one.done, *other.done}
    assert both.request == max(one.request, other.request)
    assert merged(both, one) == both
    if one.request == other.request and State.HELD in (one.state, other.state):
        assert both.state is State.HELD
    if one.request > other.request:
        assert both.state is one.state


def test_tombstones() -> None:
    """A tombstone needs that everybody is done, or parked mail at its end, or a person."""
    bury(Progress(done=(0, 1)), 2)
    bury(Progress(State.PARKED), 2)
    bury(Progress(State.HELD), 2, by_hand=True)
    for state in (State.QUEUED, State.DEFERRED, State.HELD, State.CONTENT_LOST):
        with pytest.raises(IllegalMove, match="1 recipients are open"):
            bury(Progress(state, done=(0,)), 2)


def test_fresh() -> None:
    """A record as ingest writes it is told from a later state whatever the time."""
    assert fresh(Progress(since=12345.0))
    assert not fresh(Progress(attempts=1))
    assert not fresh(Progress(dsn_id="a"))
    assert not fresh(Progress(State.HELD))
