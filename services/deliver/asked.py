"""What a request means for a mail: is it about this one, and what becomes of it (rule 3).

A request touches only mail that arrived before it, and a mail remembers the offset of the last request that
was applied to it: whoever reads the same request again does nothing twice, and an older one does nothing at
all.
"""

from collections.abc import Mapping

from msgspec import Struct

from libs.mail.address import BadAddress, mailbox
from libs.mail.event import EventType
from libs.mail.records import (
    Bounce,
    Cause,
    Delete,
    Hold,
    Mail,
    MailRequest,
    Progress,
    Redeliver,
    Release,
    Retry,
    State,
    Which,
)
from libs.mail.states import move, open_recipients
from services.deliver.waiting import Waiting

_Verb = type[MailRequest]

# The states from which a verb moves a mail on.
FROM: Mapping[_Verb, frozenset[State]] = {
    Retry: frozenset({State.DEFERRED}),
    Hold: frozenset({State.QUEUED, State.DEFERRED}),
    Release: frozenset({State.HELD}),
    Redeliver: frozenset({State.PARKED}),
    Bounce: frozenset({State.QUEUED, State.DEFERRED, State.HELD}),
    Delete: frozenset(State),
}
# What is said about the mail when it was done: the event, and the word for people.
DONE: Mapping[_Verb, tuple[EventType, str]] = {
    Retry: (EventType.RETRIED, "retried"),
    Hold: (EventType.HELD, "held"),
    Release: (EventType.RELEASED, "released"),
    Redeliver: (EventType.REDELIVERED, "redelivered"),
    Bounce: (EventType.BOUNCE, "bounced"),
    Delete: (EventType.DELETED, "deleted"),
}


class Moved(Struct, frozen=True):
    """Write this state."""

    progress: Progress


class GivenUp(Struct, frozen=True):
    """Go on from this progress: its open recipients failed."""

    progress: Progress


class Ended(Struct, frozen=True):
    """Write the tombstone."""


class Applied(Struct, frozen=True):
    """This very request was applied before."""


class Unchanged(Struct, frozen=True):
    """Nothing is done; `why` ends the sentence that begins with "mail ID"; `already`: it is as was asked
    for."""

    why: str
    already: bool = False


Meaning = Moved | GivenUp | Ended | Applied | Unchanged


def perhaps(request: MailRequest, mail: Waiting, asked_at: float) -> bool:
    """Can `request`, which the log took at `asked_at`, be about this entry of the index? A selection is never
    about mail of our own making, which somebody asks for by its id."""
    if request.id:
        return mail.id == request.id
    return (
        mail.state in FROM[type(request)]
        and not mail.kind.ours
        and (not request.domain or mail.domain == request.domain)
        and mail.arrived < asked_at - request.which.older_s
    )


def concerns(which: Which, mail: Mail, progress: Progress) -> bool:
    """Is it about this mail, as far as its sender and the recipients tell that need something still?"""
    if which.sender and not _matches(which.sender, mail.reverse_path or "<>"):
        return False
    if not which.recipient:
        return True
    return any(
        _matches(which.recipient, recipient.mailbox)
        for index, recipient in enumerate(mail.recipients)
        if index not in progress.done
    )


def meaning(request: MailRequest, mail: Mail, progress: Progress, offset: int, now: float) -> Meaning:
    """What becomes of `mail` by `request`, which was read at `offset`, at `now` (wall seconds)."""
    if isinstance(request, Delete):
        return Ended()
    if progress.request == offset:
        return Applied()
    if progress.request > offset:
        return Unchanged("has been asked about since")
    if progress.state not in FROM[type(request)]:
        return _why_not(request, progress.state)
    match request:
        case Retry():
            return Moved(move(progress, progress.state, now, request=offset))
        case Hold():
            return Moved(move(progress, State.HELD, now, request=offset))
        case Release():
            return Moved(move(progress, State.QUEUED, now, request=offset))
        case Redeliver():
            again = move(progress, State.QUEUED, now, request=offset, failed=(), cause=Cause.REFUSED)
            return Moved(again)
        case Bounce():
            left = open_recipients(progress, len(mail.recipients))
            to = State.QUEUED if progress.state is State.HELD else progress.state
            return GivenUp(
                move(
                    progress,
                    to,
                    now,
                    next_attempt=progress.next_attempt,
                    failed=(*progress.failed, *left),
                    request=offset,
                    cause=Cause.GIVEN_UP,
                )
            )


def _why_not(request: MailRequest, state: State) -> Unchanged:
    match request:
        case Retry() if state is State.QUEUED:
            return Unchanged("is due already", already=True)
        case Hold() if state is State.HELD:
            return Unchanged("is held already", already=True)
        case Release():
            return Unchanged(f"is not held: it is {state}")
        case Redeliver():
            return Unchanged(f"is not parked: it is {state}")
    return Unchanged(f"is {state}")


def _matches(wanted: str, address: str) -> bool:
    """`wanted`: a mailbox in normal form, `@domain`, or <>."""
    if "@" not in wanted or address == "<>":
        return wanted == address
    try:
        found = mailbox(address)
    except BadAddress:
        return False
    return found.domain == wanted[1:] if wanted.startswith("@") else found.key == wanted
