"""A primary that blocks us is a state, for all to see, and never a negative answer about a recipient."""

from pathlib import Path

import pytest
from prometheus_client import generate_latest

from libs.mail.knowledge import Callouts, PrimaryFacts, RecipientTry, Status
from tests.helpers.clock import Clock
from tests.helpers.patience import until
from tests.verify.house import ANN, BOB, EVE, House, at, house

LISTED = "554 5.7.1 Service unavailable; Client host [127.0.0.9] blocked using zen.spamhaus.org"


def gauge(it: House, state: str) -> float | None:
    return it.deps.metrics.registry.get_sample_value(
        "backupmx_primary_callouts", {"domain": "office.example", "state": state}
    )


def blocked(it: House) -> PrimaryFacts | None:
    facts = it.facts()
    return facts if facts is not None and facts.callouts is Callouts.BLOCKED else None


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("BANNER", "554 5.7.1 no service for you"),
        ("BANNER", "521 5.7.1 Service unavailable; client [127.0.0.9] blocked using bl.spamcop.net"),
        ("EHLO", "550 5.7.1 HELO name is invalid"),
        ("MAIL", "550 5.1.1 User unknown"),
        ("MAIL", "550 5.7.1 Access denied"),
        ("RCPT", LISTED),
        ("RCPT", "550 5.7.1 rejected: 127.0.0.9 is listed at zen.spamhaus.org"),
        ("RCPT", "450 4.7.25 Client host rejected: cannot find your hostname, [127.0.0.9]"),
        ("RCPT", "554 5.7.1 <ann@office.example>: Relay access denied"),
        ("RCPT", "530 5.7.0 Authentication required"),
    ],
)
async def test_blocked_at_any_stage(tmp_path: Path, stage: str, reply: str, pipelining: bool) -> None:
    """The state, its reply, the metric and the hint are there after the first answer; the recipients that
    are known stay as they are, others stay unknown; the first answer about a mailbox ends it."""
    clock = Clock()
    primary = at(known={ANN}) if pipelining else at(known={ANN}, capabilities=("8BITMIME",))
    async with primary, house(tmp_path, primary, clock=clock) as it:
        await it.add()
        await it.ask(ANN)
        assert it.status(ANN) is Status.DELIVERABLE
        await primary.until(lambda: not primary.open_visits)
        primary.say(stage, reply)
        clock.advance(8 * 86_400)
        for name in (BOB, ANN):
            assert isinstance(await it.ask(name), RecipientTry)
        assert (it.status(ANN), it.status(BOB)) == (Status.DELIVERABLE, None)
        facts = await until(lambda: blocked(it))
        assert facts is not None
        assert (facts.reply, facts.host) == (reply, "mx1.backup.example")
        await until(lambda: gauge(it, "blocked") == 1)
        assert gauge(it, "open") is None
        assert "callouts blocked: " in it.events()
        visits = len(primary.visits)
        assert isinstance(await it.ask(EVE), RecipientTry)
        assert len(primary.visits) == visits
        primary.say(stage, "")
        clock.advance(901)
        await it.ask(BOB)
        assert it.status(BOB) is Status.UNDELIVERABLE
        await until(lambda: gauge(it, "open") == 1)
        over = it.facts()
        assert over is not None
        assert (over.callouts, over.reply) == (Callouts.OPEN, "")


async def test_the_event_tells_the_owner_what_to_do(tmp_path: Path) -> None:
    """The hint with our address is in the event, once."""
    async with at() as primary, house(tmp_path, primary) as it:
        primary.say("RCPT", LISTED)
        await it.add()
        await it.ask(ANN)
        await it.ask(BOB)
        await until(lambda: "blocked using" in it.events())
        assert it.events().count("`127.0.0.9 OK` into /etc/postfix/backupmx.cidr") == 1


async def test_the_metric_goes_with_the_domain(tmp_path: Path) -> None:
    """A domain that is removed leaves no label behind."""
    async with at() as primary, house(tmp_path, primary) as it:
        await it.add()
        await it.ask(ANN)
        await until(lambda: gauge(it, "open") == 1)
        await it.remove()
        await until(lambda: gauge(it, "open") is None)
        assert b"office.example" not in generate_latest(it.deps.metrics.registry)
