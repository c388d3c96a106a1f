"""A reply, or none, becomes a finding: what it says of the recipient. For callouts and deliveries."""

from typing import NamedTuple

from libs.mail.knowledge import Callouts, PrimaryFacts, Status
from libs.mail.reply import Foreign
from libs.mail.speaks import Speaks, Stage, speaks
from libs.mail.stance import Stance, stance


class Deliverable(NamedTuple):
    """The primary takes mail for it, or would if there were room (quota proves existence)."""

    reply: str


class Undeliverable(NamedTuple):
    """A clear sentence about the mailbox."""

    reply: str


class Unverifiable(NamedTuple):
    """Nothing is known. `reason` is one word (RecipientTry.last_outcome); `blocked`: the primary refuses us,
    whomever we ask about; `elsewhere`: as in RecipientTry."""

    reason: str
    blocked: bool
    reply: str = ""
    elsewhere: str = ""


Finding = Deliverable | Undeliverable | Unverifiable

_REASONS = {
    Speaks.POLICY: "policy",
    Speaks.GREYLIST: "greylisted",
    Speaks.TEMPORARY: "deferred",
    Speaks.OVERLOADED: "overloaded",
    Speaks.SYSTEM: "system",
    Speaks.OTHER_PERMANENT: "refused",
    Speaks.NO_MAILBOX: "refused",
    Speaks.QUOTA: "deferred",
}


def classify(stage: str, reply: Foreign | None, reason: str = "unreachable") -> Finding:
    """What an answer, or none (`reason`: a Fault's), says of the recipient. `stage`: a Stage, any case."""
    if reply is None:
        return Unverifiable(_word(reason), blocked=False)
    stage = stage.upper()
    about = speaks(stage, reply)
    if stage in (Stage.RCPT, Stage.DOT):
        if about in (Speaks.OK, Speaks.QUOTA):
            return Deliverable(reply.line())
        if about is Speaks.NO_MAILBOX:
            return Undeliverable(reply.line())
    blocked = stance(stage, reply) is Stance.BLOCKING
    return Unverifiable(_REASONS.get(about, "unexpected"), blocked, reply.line())


def believable(finding: Finding, facts: PrimaryFacts | None) -> Finding:
    """A primary that accepts everything, or rejects after the final dot, says with its 250 to RCPT only that
    it is up."""
    says_little = facts is not None and facts.callouts in (Callouts.CATCH_ALL, Callouts.LATE_REJECT)
    if says_little and isinstance(finding, Deliverable):
        return Unverifiable("up", blocked=False, reply=finding.reply)
    return finding


def heard_elsewhere(finding: Finding, why: Unverifiable) -> Unverifiable:
    """What an MX of a worse preference says of a recipient while the best one cannot be asked (`why`). It
    teaches nothing: such a server often is a relay that takes anything."""
    match finding:
        case Deliverable():
            return why._replace(elsewhere=Status.DELIVERABLE.value)
        case Undeliverable():
            return why._replace(elsewhere=Status.UNDELIVERABLE.value)
        case Unverifiable():
            return why


def _word(reason: str) -> str:
    return "unreachable" if reason in ("refused", "timeout", "unreachable", "source") else reason
