"""Who is told of what became of a mail, and how the mail goes on: rule 12, NOTIFY (RFC 3461 section 4.1).

A DSN goes only to a return path that authenticated, never to the null reverse-path and never about mail of
our own. Otherwise a mail that failed is parked for the owner of the domain, once nothing is left to attempt.
"""

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from libs.mail.records import Kind, Mail, Progress, State
from libs.mail.states import bury, move, open_recipients
from services.deliver.dsn import dsn_id


class Action(StrEnum):
    """What a DSN says of its recipients (RFC 3464 section 2.3.3); also the kind in its id."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"


class Notice(Struct, frozen=True):
    """A DSN to be written: its `id`, and the recipients (by index) that it is about."""

    action: Action
    id: str
    recipients: tuple[int, ...]


class Telling(Struct, frozen=True):
    """Failed recipients by what is done about each: `dsn`: the sender is told; `silent`: the sender asked
    not to be; `dropped`: there is nobody to tell (a DSN about a DSN); `parked`: the owner keeps them."""

    dsn: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    parked: tuple[int, ...] = ()


def tell(mail: Mail, failed: tuple[int, ...]) -> Telling:
    """What is done about the recipients of `mail` that failed (by index)."""
    if mail.kind is Kind.OPERATOR:
        return Telling(parked=failed)
    if mail.kind.ours or not mail.reverse_path:
        return Telling(dropped=failed)
    silent = tuple(index for index in failed if not _wants(mail, index, "FAILURE"))
    others = tuple(index for index in failed if index not in silent)
    if _permitted(mail):
        return Telling(dsn=others, silent=silent)
    return Telling(silent=silent, parked=others)


def sender_domain(mail: Mail) -> str:
    """Whose MX takes a DSN about `mail`; "" for a reverse-path without a domain name."""
    domain = mail.reverse_path.rpartition("@")[2]
    return "" if domain.startswith("[") else domain


def relayed(mail: Mail, delivered: Iterable[int]) -> tuple[int, ...]:
    """Of the recipients taken by a server that does not offer DSN (RFC 3461 section 5.2.2): those whose
    sender asked to be told, and may be."""
    if not _permitted(mail):
        return ()
    return tuple(index for index in delivered if "SUCCESS" in mail.recipients[index].notify)


def delayed(mail: Mail, progress: Progress) -> Notice | None:
    """The DSN about the open recipients of a mail that has been here for long; None where nobody wants it or
    may be told, and where it was told. Its id is the same whoever is open still: there is one for a mail."""
    if progress.delay_told or not _permitted(mail):
        return None
    left = open_recipients(progress, len(mail.recipients))
    told = tuple(index for index in left if _wants(mail, index, "DELAY"))
    every = tuple(range(len(mail.recipients)))
    return Notice(Action.DELAYED, _id(mail, Action.DELAYED, every), told) if told else None


def _permitted(mail: Mail) -> bool:
    """May its sender be told anything (rule 12)?"""
    return mail.kind is Kind.RELAYED and mail.may_notify and bool(sender_domain(mail))


def _wants(mail: Mail, index: int, what: str) -> bool:
    """RFC 3461 section 4.1: without NOTIFY the sender is told of failures and delays."""
    notify = mail.recipients[index].notify
    return not notify or what in notify


def _id(mail: Mail, action: Action, recipients: Iterable[int]) -> str:
    return dsn_id(mail.id, action, [mail.recipients[index].mailbox for index in recipients])


class Plan(Struct, frozen=True):
    """What is written, in this order: `before` (with `dsn_id`, when there are notices: a crash after it
    writes the same DSNs again), the `notices`, then `after`, or the tombstone where it is None."""

    telling: Telling
    notices: tuple[Notice, ...]
    before: Progress | None
    after: Progress | None


def plan(mail: Mail, progress: Progress, now: float) -> Plan:
    """How `mail` goes on after `progress` noted who is done, who failed and of whom his sender is to be told.
    Raises states.IllegalMove for a mail that may not end."""
    telling = tell(mail, progress.failed)
    due = progress.next_attempt
    told = move(progress, progress.state, now, next_attempt=due, done=(*telling.silent, *telling.dropped))
    notices = tuple(
        Notice(action, _id(mail, action, recipients), recipients)
        for action, recipients in ((Action.RELAYED, progress.relayed), (Action.FAILED, telling.dsn))
        if recipients
    )
    before = None
    if notices:
        before = move(told, told.state, now, next_attempt=due, dsn_id=notices[-1].id)
        told = move(before, before.state, now, next_attempt=due, done=telling.dsn, relayed=())
    if open_recipients(told, len(mail.recipients)):
        return Plan(telling, notices, before, told)
    if told.failed:
        return Plan(telling, notices, before, move(told, State.PARKED, now))
    bury(told, len(mail.recipients))
    return Plan(telling, notices, before, None)
