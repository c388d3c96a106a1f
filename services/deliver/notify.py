"""Who is told of a failure, and what becomes of the mail then: rule 12, NOTIFY (RFC 3461 section 4.1).

A DSN goes only to a return path that authenticated, never to the null reverse-path and never about mail of
our own. Otherwise the mail is parked for the owner of the domain, once nothing is left to attempt.
"""

from msgspec import Struct

from libs.mail.records import Kind, Mail, Progress, State
from libs.mail.states import bury, move, open_recipients


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
    silent = tuple(index for index in failed if not _wants(mail.recipients[index].notify))
    others = tuple(index for index in failed if index not in silent)
    if mail.may_notify and sender_domain(mail):
        return Telling(dsn=others, silent=silent)
    return Telling(silent=silent, parked=others)


def sender_domain(mail: Mail) -> str:
    """Whose MX takes a DSN about `mail`; "" for a reverse-path without a domain name."""
    domain = mail.reverse_path.rpartition("@")[2]
    return "" if domain.startswith("[") else domain


def _wants(notify: tuple[str, ...]) -> bool:
    """RFC 3461 section 4.1: without NOTIFY the sender is told of failures."""
    return not notify or "FAILURE" in notify


class Plan(Struct, frozen=True):
    """What is written, in this order: `before` (with `dsn_id`, when a DSN is to be written: a crash after it
    writes the same DSN again), the DSN about `telling.dsn`, then `after`, or the tombstone where it is
    None."""

    telling: Telling
    before: Progress | None
    after: Progress | None


def plan(mail: Mail, progress: Progress, dsn_id: str, now: float) -> Plan:
    """How `mail` goes on after `progress` noted who is done and who failed; `dsn_id`: of the DSN, should one
    be needed. Raises states.IllegalMove for a mail that may not end."""
    telling = tell(mail, progress.failed)
    due = progress.next_attempt
    told = move(progress, progress.state, now, next_attempt=due, done=(*telling.silent, *telling.dropped))
    before = None
    if telling.dsn:
        before = move(told, told.state, now, next_attempt=due, dsn_id=dsn_id)
        told = move(before, before.state, now, next_attempt=due, done=telling.dsn)
    if open_recipients(told, len(mail.recipients)):
        return Plan(telling, before, told)
    if told.failed:
        return Plan(telling, before, move(told, State.PARKED, now))
    bury(told, len(mail.recipients))
    return Plan(telling, before, None)
