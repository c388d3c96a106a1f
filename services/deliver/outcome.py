"""The table of the primary's answers in one place: a reply becomes done, retry or failed; settle.

The scope of a retry decides who backs off: the recipient and the mail have a backoff of their own, for a
destination the mail just waits until it is up. Permanent is only what is known to be about this mail or
recipient; everything else is temporary (rule 7).
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from libs.mail.records import Kind, Mail, Progress, State
from libs.mail.reply import Foreign
from libs.mail.speaks import Speaks, Stage, speaks
from libs.mail.states import move, open_recipients
from services.deliver import brake as bounce_brake
from services.deliver import destination
from services.deliver.schedule import backoff_s

REFUSED_S = 24 * 3600.0  # one mail refused by policy while others pass fails after this
UNABLE_S = 3600.0  # what the next hop does not offer, it still does not offer after this


class Scope(StrEnum):
    RECIPIENT = "recipient"
    MAIL = "mail"
    DESTINATION = "destination"


class Why(StrEnum):
    """What a retry or failure is about; the reasons of metrics. LOST: the connection ended in the middle."""

    DEFERRED = "deferred"
    QUOTA = "quota"
    REFUSED = "refused"
    DOWN = "down"
    OVERLOADED = "overloaded"
    LOST = "lost"
    BRAKED = "braked"
    NO_MAILBOX = "no_mailbox"
    CONTENT = "content"
    EXPIRED = "expired"
    GIVEN_UP = "given_up"


class Done(Struct, frozen=True):
    reply: Foreign


class Retry(Struct, frozen=True):
    scope: Scope
    why: Why
    reply: Foreign | None
    text: str = ""


class Failed(Struct, frozen=True):
    scope: Scope
    why: Why
    reply: Foreign


Outcome = Done | Retry | Failed


class Lost(Struct, frozen=True):
    """No reply: the connection could not be made or broke; `reason` in a word (refused, timeout, closed
    ...)."""

    reason: str


class Unable(Struct, frozen=True):
    """Nothing was said: the next hop does not offer what the mail needs. `reply`: as it would have been."""

    reply: Foreign


class Known(Struct, frozen=True):
    """What else an outcome depends on. `accepted_lately`: the destination accepted a mail in the last hour;
    `ours`: the mail is of our own making (a DSN or a notice)."""

    accepted_lately: bool = False
    ours: bool = False


_MAIL_STAGES = (Stage.RCPT, Stage.DATA, Stage.CONTENT, Stage.DOT, Stage.RSET)
# Explicit sentences about this mail: RFC 3463 sections 3.4 and 3.3 (too large), RFC 6531.
_ABOUT_THE_MAIL = ("5.3.4", "5.2.3", "5.6.7", "5.6.9")


def outcome(stage: str, got: Foreign | Lost | Unable, known: Known) -> Outcome:
    """What `got` at `stage` (a speaks.Stage) means for the recipient (RCPT) or for the whole mail.

    250 at RCPT is not asked about: what comes after the final dot decides for those recipients.
    """
    if isinstance(got, Lost):
        if stage in _MAIL_STAGES:
            return Retry(Scope.MAIL, Why.LOST, None, got.reason)
        return Retry(Scope.DESTINATION, Why.DOWN, None, got.reason)
    if isinstance(got, Unable):
        return Retry(Scope.MAIL, Why.CONTENT, got.reply)
    about = speaks(stage, got)
    if about is Speaks.OK:
        # A mail is done by a 2yz to its own final dot and by nothing else: a yes that comes anywhere else is
        # a server out of step, or its farewell.
        if stage == Stage.DOT and got.code < 300:
            return Done(got)
        return Retry(Scope.MAIL, Why.LOST, got, "out of step")
    if got.code < 500:
        return _temporary(stage, got, about)
    if got.enhanced in _ABOUT_THE_MAIL and stage in (Stage.MAIL, Stage.RCPT, Stage.DOT):
        scope = Scope.RECIPIENT if stage == Stage.RCPT else Scope.MAIL
        return Failed(scope, Why.CONTENT, got)
    if about is Speaks.QUOTA:
        return Retry(_scope(stage), Why.QUOTA, got)
    if stage == Stage.RCPT and about is Speaks.NO_MAILBOX:
        return Failed(Scope.RECIPIENT, Why.NO_MAILBOX, got)
    if stage == Stage.DOT and about in (Speaks.NO_MAILBOX, Speaks.OTHER_PERMANENT) and known.accepted_lately:
        return Failed(Scope.MAIL, Why.NO_MAILBOX if about is Speaks.NO_MAILBOX else Why.CONTENT, got)
    if known.ours:
        return Failed(Scope.MAIL, Why.REFUSED, got)  # a DSN is not worth fighting for
    return Retry(Scope.MAIL, Why.REFUSED, got)


def _temporary(stage: str, got: Foreign, about: Speaks) -> Outcome:
    if about is Speaks.OVERLOADED:
        return Retry(Scope.DESTINATION, Why.OVERLOADED, got)
    if about is Speaks.QUOTA:
        return Retry(_scope(stage), Why.QUOTA, got)
    return Retry(_scope(stage), Why.DEFERRED, got)


def _scope(stage: str) -> Scope:
    return Scope.RECIPIENT if stage == Stage.RCPT else Scope.MAIL


def broken_off(stage: str, reply: Foreign | None, reason: str) -> tuple[str, Foreign | Lost | Unable]:
    """What came for every recipient when a transaction was not gone through with; `reason`: a Fault's. What
    no command can hold is as if the next hop had refused MAIL."""
    match reason:
        case "smtputf8":
            return Stage.MAIL, Unable(Foreign(550, "5.6.7", "the next hop does not offer SMTPUTF8"))
        case "syntax":
            return Stage.MAIL, Foreign(553, "5.1.3", "an address that no command can hold")
    return stage, reply or Lost(f"{stage}: {reason}")


# --- the next hop, without a mail ---


def unreached(stage: str, reply: Foreign | None, reason: str) -> destination.Seen:
    """What a connection that was not made, or a probe that broke off, says of the next hop."""
    if reply is None:
        return destination.Closed(f"{stage}: {reason}")
    line = f"{stage}: {reply.line()}"
    return destination.Refused(None, line) if reply.code >= 500 else destination.Overloaded(line)


def of_hosts(one: destination.Seen, other: destination.Seen) -> destination.Seen:
    """Of two hosts, the one that answered says more than the one that did not."""
    silent = destination.Closed
    return one if isinstance(other, silent) and not isinstance(one, silent) else other


def probed(stage: str, reply: Foreign) -> destination.Seen:
    """What the end of a probe says: any answer to RCPT but 421, 4.3.x or a block means up."""
    match speaks(stage, reply):
        case Speaks.OVERLOADED:
            return destination.Overloaded(f"{stage}: {reply.line()}")
        case Speaks.POLICY:
            return destination.Refused(None, f"{stage}: {reply.line()}")
    return destination.Opened()


# --- the whole mail ---


class Settled(Struct, frozen=True):
    """What an attempt came to. `delivered`, `failed`, `retried`: recipients by index; `progress`: the mail
    from now on (None: as it was, nothing is written); `braked`: refusals that are not final."""

    delivered: Mapping[int, Done]
    failed: Mapping[int, Failed]
    retried: Mapping[int, Retry]
    progress: Progress | None


def settle(
    mail: Mail,
    progress: Progress,
    each: Mapping[int, Outcome],
    now: float,
    *,
    final: bool,
    refusing: bool,
    jitter: float,
) -> Settled:
    """The outcomes of one attempt (recipient index -> outcome), taken together at `now` (wall seconds).

    `final`: may the refusal of a mailbox fail a recipient (the bounce brake)? `refusing`: does the primary
    refuse everybody? Then no mail fails for it. The mail's `progress` notes who is done and who failed; when
    recipients are left, it is DEFERRED until its backoff is over, unless the trouble is the destination's.
    """
    delivered = {index: got for index, got in each.items() if isinstance(got, Done)}
    failed: dict[int, Failed] = {}
    retried: dict[int, Retry] = {}
    for index, got in each.items():
        verdict = _last_word(got, progress, now, final=final, refusing=refusing, kind=mail.kind)
        if isinstance(verdict, Failed):
            failed[index] = verdict
        elif isinstance(verdict, Retry):
            retried[index] = verdict
    changed = bool(delivered or failed)
    own = [retry for retry in retried.values() if retry.scope is not Scope.DESTINATION]
    if not changed and not own:
        return Settled(delivered, failed, retried, None)
    not_done: list[Failed | Retry] = [*failed.values(), *retried.values()]
    last = _line(not_done[0]) if not_done else progress.last_reply
    left = set(open_recipients(progress, len(mail.recipients))) - set(delivered) - set(failed)
    to, due = progress.state, progress.next_attempt
    if left and own:
        braked_only = all(retry.why is Why.BRAKED for retry in own)
        pause = bounce_brake.AGAIN_S if braked_only else backoff_s(progress.attempts + 1, jitter)
        to, due = State.DEFERRED, now + pause
    after = move(
        progress,
        to,
        now,
        attempts=progress.attempts + 1,
        next_attempt=due if to is State.DEFERRED else 0.0,
        done=delivered,
        failed=(*progress.failed, *failed),
        last_reply=last,
    )
    return Settled(delivered, failed, retried, after)


def _last_word(
    got: Outcome, progress: Progress, now: float, *, final: bool, refusing: bool, kind: Kind
) -> Outcome:
    match got:
        case Failed(_, Why.NO_MAILBOX, reply) if not final and kind is Kind.RELAYED:
            return Retry(Scope.RECIPIENT, Why.BRAKED, reply)
        case Retry(_, Why.CONTENT, reply) if (
            reply is not None
            and progress.state is State.DEFERRED
            and progress.last_reply == reply.line()
            and now - progress.since >= UNABLE_S
        ):
            return Failed(Scope.MAIL, Why.CONTENT, reply)
        case Retry(_, Why.REFUSED, reply) if (
            reply is not None
            and not refusing
            and progress.state is State.DEFERRED
            and now - progress.since >= REFUSED_S
        ):
            return Failed(Scope.MAIL, Why.REFUSED, reply)
    return got


def _line(got: Failed | Retry) -> str:
    if got.reply is not None:
        return got.reply.line()
    return got.text if isinstance(got, Retry) else ""


def seen(mail: Mail, each: Mapping[int, Outcome]) -> destination.Seen:
    """What an attempt says of the destination. One recipient that was taken says more than all that were
    not."""
    outcomes = tuple(each.values())
    if any(isinstance(got, Done) for got in outcomes):
        return destination.Succeeded()
    retries = [got for got in outcomes if isinstance(got, Retry)]
    for why, make in (
        (Why.DOWN, destination.Closed),
        (Why.OVERLOADED, destination.Overloaded),
    ):
        if of_it := [got for got in retries if got.why is why]:
            return make(_line(of_it[0]))
    if any(isinstance(got, Failed) for got in outcomes):
        return destination.Answered()
    for got in retries:
        if got.why in (Why.DEFERRED, Why.LOST):
            return destination.Deferred(mail.id, _line(got))
    for got in retries:
        if got.why is Why.REFUSED:
            return destination.Refused(mail.reverse_path, _line(got))
    return destination.Answered()
