"""The legal moves of a mail (docs/states.md): every rewrite of a `queue` record goes through here.

`waiting` and `bouncing` are never written: the first is QUEUED or DEFERRED while the primary is down, the
second is any mail with `dsn_id` set. `done` is a tombstone: `buried` says whether it may be written.
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from libs.mail.records import Cause, Progress, State


class IllegalMove(Exception):  # noqa: N818 the word of docs/states.md
    """A mail may not go from its state to that one; the message names both."""


_ALIVE = frozenset(State) - {State.QUEUED}
LEGAL: Mapping[State, frozenset[State]] = {
    State.QUEUED: _ALIVE | {State.QUEUED},
    State.DEFERRED: _ALIVE | {State.QUEUED},
    State.HELD: frozenset({State.HELD, State.QUEUED}),
    State.PARKED: frozenset({State.PARKED, State.QUEUED}),
    State.CONTENT_LOST: frozenset({State.CONTENT_LOST}),
}
# Which state stands when two owners wrote one each on the word of the same request: the stillest.
_STILLEST = (State.QUEUED, State.DEFERRED, State.PARKED, State.CONTENT_LOST, State.HELD)


def move(
    old: Progress,
    to: State,
    now: float,
    *,
    attempts: int | None = None,
    next_attempt: float = 0.0,
    done: Iterable[int] = (),
    failed: Iterable[int] | None = None,
    last_reply: str | None = None,
    dsn_id: str = "",
    request: int | None = None,
    cause: Cause | None = None,
    relayed: Iterable[int] | None = None,
    delay_told: bool = False,
) -> Progress:
    """`old` in state `to` at `now` (wall seconds).

    `done` is added to what was done, never taken back; what is done is not failed; who was told of a delay
    stays told. Not given: `attempts`, `failed`, `last_reply`, `request`, `cause` and `relayed` stay. Raises
    IllegalMove, also for an attempt count or a request offset that goes back, and for a mail without attempts
    (HELD, PARKED, CONTENT_LOST) that would be due.
    """
    attempts = old.attempts if attempts is None else attempts
    request = old.request if request is None else request
    if to not in LEGAL[old.state]:
        raise IllegalMove(f"{old.state} -> {to}")
    if attempts < old.attempts or request < old.request:
        raise IllegalMove(f"{old.state} -> {to}: attempts or request go back")
    if next_attempt and to is not State.DEFERRED:
        raise IllegalMove(f"{old.state} -> {to}: only a deferred mail has a next attempt")
    every = tuple(sorted({*old.done, *done}))
    still = old.failed if failed is None else failed
    return replace(
        old,
        state=to,
        attempts=attempts,
        next_attempt=next_attempt,
        done=every,
        failed=tuple(sorted(set(still) - set(every))),
        last_reply=old.last_reply if last_reply is None else last_reply,
        dsn_id=dsn_id,
        request=request,
        since=old.since if to is old.state else now,
        cause=old.cause if cause is None else cause,
        relayed=old.relayed if relayed is None else tuple(sorted(relayed)),
        delay_told=old.delay_told or delay_told,
    )


def open_recipients(progress: Progress, count: int) -> tuple[int, ...]:
    """The indexes, of `count` recipients, that are neither done nor failed: those an attempt names."""
    closed = {*progress.done, *progress.failed}
    return tuple(index for index in range(count) if index not in closed)


def bury(progress: Progress, count: int, *, by_hand: bool = False) -> None:
    """Check that the tombstone of a mail with `count` recipients may be written: when all are done, at the
    end of PARKED, or when a person deletes it (`by_hand`). Raises IllegalMove."""
    if by_hand or progress.state is State.PARKED or set(progress.done) >= set(range(count)):
        return
    raise IllegalMove(f"{progress.state} -> done: {count - len(set(progress.done))} recipients are open")


def fresh(progress: Progress) -> bool:
    """Is this a record as ingest (or the writer of a DSN) makes it: nothing happened to the mail yet?"""
    return progress == Progress(since=progress.since)


def merged(one: Progress, other: Progress) -> Progress:
    """Two owners' states of one mail as one (rule 3): outcomes of recipients add up, the later request has
    the word about the state and about who failed, at the same request the stiller state stands. Commutative;
    nothing that is done is lost; who failed before a later request is tried again."""
    done = {*one.done, *other.done}
    if one.request != other.request:
        leader = max(one, other, key=lambda progress: progress.request)
        failed, cause = {*leader.failed}, leader.cause
    else:
        leader = max(one, other, key=_rank)
        failed, cause = {*one.failed, *other.failed}, max(one.cause, other.cause)
    return replace(
        leader,
        attempts=max(one.attempts, other.attempts),
        done=tuple(sorted(done)),
        failed=tuple(sorted(failed - done)),
        cause=cause,
        relayed=tuple(sorted({*one.relayed, *other.relayed})),
        dsn_id=leader.dsn_id or one.dsn_id or other.dsn_id,
        delay_told=one.delay_told or other.delay_told,
    )


def _rank(progress: Progress) -> tuple[int, float, int, float, str, str]:
    return (
        _STILLEST.index(progress.state),
        progress.next_attempt,
        progress.attempts,
        progress.since,
        progress.last_reply,
        progress.dsn_id,
    )
