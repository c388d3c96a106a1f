"""A spent callout budget: unknown recipients of that primary wait, known ones never notice."""

import pytest
from msgspec.structs import replace

from libs.mail import replies
from libs.mail.address import mailbox
from libs.mail.knowledge import RecipientStatus, RecipientTry, Status
from libs.mail.records import Domain
from libs.mail.settings import Defaults, complete
from services.ingest.facts import Accept, Envelope, Facts, OurNames
from services.ingest.policy import at_answer, at_deadline

NOW = 1_800_000_000.0
ANN = mailbox("ann@office.example")
EVE = Envelope("eve@sender.example")
SPENT = RecipientTry(str(ANN), NOW - 1, "budget")
FACTS = Facts(
    OurNames("mx1.backup.example", {}, mailbox("ops@ops.example")),
    whole=True,
    settings=complete(Defaults(), Domain("office.example", 1.0, active_since=1.0)),
    fresh=True,
    tried=SPENT,
)


@pytest.mark.parametrize("decide", [at_answer, at_deadline])
def test_unknown_recipients_are_deferred(decide: object) -> None:
    """A recipient that was not asked about for want of budget gets 451 4.7.1, not a 250 on suspicion."""
    assert callable(decide)
    assert decide(ANN, FACTS, EVE, NOW) is replies.TOO_MANY_UNVERIFIED


def test_for_a_minute_only() -> None:
    """An old refusal says nothing of now: the recipient is accepted on suspicion as ever."""
    assert isinstance(at_deadline(ANN, FACTS, EVE, NOW + 60), Accept)
    other = replace(FACTS, tried=RecipientTry(str(ANN), NOW - 1, "unreachable"))
    assert isinstance(at_deadline(ANN, other, EVE, NOW), Accept)


def test_known_recipients_never_notice() -> None:
    """A deliverable recipient is accepted whatever the budget."""
    known = replace(FACTS, status=RecipientStatus(str(ANN), Status.DELIVERABLE, NOW - 9, NOW - 9))
    assert isinstance(at_deadline(ANN, known, EVE, NOW), Accept)
