"""What is remembered of a primary between callouts, without sockets: hold-offs, budget, blocks, brake,
pace."""

from libs.mail.knowledge import Callouts, PrimaryFacts
from libs.mail.trouble import Server
from services.verify.asking import (
    BLOCKED_S,
    NEGATIVES,
    NEGATIVES_S,
    PACE_BURST,
    PACE_PER_S,
    UNREACHABLE_S,
    Asked,
    Heard,
    Offered,
    Said,
    facts,
    heard,
    hold,
    paced,
    rejects_late,
    unreachable,
)

DOMAIN = "office.example"
OPEN = PrimaryFacts(DOMAIN, Callouts.OPEN, 1.0)


def no(mailbox: str = "x", **more: bool) -> Heard:
    return Heard(mailbox, "undeliverable", **more)


def test_unreachable_holds_for_a_moment() -> None:
    """After all addresses failed everybody gets the same answer until a probe's time has passed."""
    asked = unreachable(Asked(), "unreachable", 100.0)
    assert hold(asked, OPEN, known=True, now=100.0 + UNREACHABLE_S - 0.1) == "unreachable"
    assert hold(asked, OPEN, known=True, now=100.0 + UNREACHABLE_S) == ""


def test_the_budget_of_negatives() -> None:
    """The 31st unknown recipient of an hour is not asked about; a known one always; an hour later all
    again."""
    asked = Asked()
    for number in range(NEGATIVES):
        assert hold(asked, OPEN, known=False, now=100.0) == ""
        asked = heard(asked, no(f"u{number}"), 100.0)
    assert hold(asked, OPEN, known=False, now=100.0) == "budget"
    assert hold(asked, OPEN, known=True, now=100.0) == ""
    assert hold(asked, OPEN, known=False, now=100.0 + NEGATIVES_S) == ""


def test_what_does_not_spend_the_budget() -> None:
    """Recipients with a status, yeses and what deliveries saw cost nothing."""
    asked = Asked()
    for _ in range(2 * NEGATIVES):
        asked = heard(asked, no(known=True), 100.0)
        asked = heard(asked, no(guess=False), 100.0)
        asked = heard(asked, Heard("x", "deliverable"), 100.0)
    assert asked.negatives == ()


def test_blocks() -> None:
    """A refusal before RCPT, or two recipients in a row refused for policy, holds callouts for 15 min."""
    blocked = heard(Asked(), Heard("a", "policy", blocked=True), 100.0)
    assert hold(blocked, OPEN, known=True, now=100.0 + BLOCKED_S - 1) == "blocked"
    assert hold(blocked, OPEN, known=True, now=100.0 + BLOCKED_S) == ""
    once = heard(Asked(), Heard("a", "policy"), 100.0)
    again = heard(once, Heard("a", "policy"), 100.0)
    assert hold(again, OPEN, known=True, now=100.0) == ""
    assert hold(heard(again, Heard("b", "policy"), 100.0), OPEN, known=True, now=100.0) == "blocked"
    between = heard(heard(once, Heard("c", "deliverable"), 100.0), Heard("b", "policy"), 100.0)
    assert hold(between, OPEN, known=True, now=100.0) == ""


def said(*, answered: bool = True, confirmed: bool = False, offered: Offered | None = None) -> Said:
    return Said(50.0, offered, answered, confirmed)


def test_blocked_is_published_and_ends_with_an_answer() -> None:
    """`blocked` survives what says nothing (a restart, a time-out) and ends when the primary speaks of a
    mailbox."""
    blocked = heard(Asked(), Heard("a", "policy", blocked=True), 100.0)
    published = facts(OPEN, DOMAIN, blocked, said(answered=False))
    assert (published.callouts, published.since) == (Callouts.BLOCKED, 50.0)
    assert facts(published, DOMAIN, Asked(), said(answered=False)).callouts is Callouts.BLOCKED
    assert facts(published, DOMAIN, Asked(), said()).callouts is Callouts.OPEN


def test_what_blocked_us_is_published_for_the_owner() -> None:
    """The line and the host, as long as it lasts; a second line while it lasts changes nothing."""
    blocked = heard(Asked(), Heard("a", "policy", blocked=True, reply="554 no"), 100.0)
    published = facts(OPEN, DOMAIN, blocked, said(answered=False)._replace(host="mx1.backup.example"))
    assert (published.reply, published.host) == ("554 no", "mx1.backup.example")
    again = heard(blocked, Heard("a", "policy", blocked=True, reply="554 still no"), 200.0)
    assert facts(published, DOMAIN, again, said(answered=False)) == published
    ended = facts(published, DOMAIN, heard(again, Heard("a", "deliverable"), 300.0), said())
    assert (ended.callouts, ended.reply, ended.host) == (Callouts.OPEN, "", "")
    one, other = Heard("a", "policy", reply="550 x"), Heard("b", "policy", reply="550 y")
    both = heard(heard(Asked(), one, 1.0), other, 2.0)
    assert facts(OPEN, DOMAIN, both, said(answered=False)).reply == "550 y"


def test_greylisting_is_noted_once_a_day() -> None:
    """When it last happened, to the day: no record for every new recipient."""
    first = facts(OPEN, DOMAIN, Asked(), greylisted(1e6, Server.POSTGREY))
    assert (first.greylisted, first.greylister) == (1e6, "postgrey")
    for now, noted in ((1e6 + 3600, 1e6), (1e6 + 86_400, 1e6 + 86_400)):
        for by in (Server.POSTGREY, Server.ANY):
            later = facts(first, DOMAIN, Asked(), greylisted(now, by))
            assert (later.greylisted, later.greylister) == (noted, "postgrey")


def test_who_greylists_is_noted_at_once() -> None:
    """Another one than before, or the first that is recognised."""
    first = facts(OPEN, DOMAIN, Asked(), greylisted(1e6, Server.ANY))
    assert (first.greylisted, first.greylister) == (1e6, "")
    assert facts(first, DOMAIN, Asked(), greylisted(1e6 + 1, Server.SQLGREY)).greylister == "sqlgrey"


def greylisted(now: float, by: Server) -> Said:
    return Said(now, None, answered=False, confirmed=False, greylister=by)


def pending(mailbox: str) -> Heard:
    return Heard(mailbox, "contradicted", pending=True, known=True)


def test_the_brake() -> None:
    """Three different recipients contradicted within an hour pull it; one confirmed recipient ends it."""
    asked = heard(heard(heard(Asked(), pending("a"), 100.0), pending("b"), 100.0), pending("a"), 200.0)
    assert not facts(OPEN, DOMAIN, asked, said()).braked
    late = heard(asked, pending("c"), 100.0 + 3600)
    assert not facts(OPEN, DOMAIN, late, said()).braked
    asked = heard(asked, pending("c"), 300.0)
    braked = facts(OPEN, DOMAIN, asked, said())
    assert braked.braked
    assert facts(braked, DOMAIN, Asked(), said()).braked, "a restart does not release it"
    asked = heard(asked, Heard("d", "deliverable", known=True), 400.0)
    assert not facts(braked, DOMAIN, asked, said(confirmed=True)).braked
    assert asked.flips == ()


def test_capabilities_are_published() -> None:
    """SIZE, SMTPUTF8, DSN and STARTTLS as EHLO said them; what was not heard stays as it was."""
    known = facts(None, DOMAIN, Asked(), said(offered=Offered(1000, True, False, True, Server.EXIM)))
    assert (known.size, known.smtputf8, known.dsn, known.starttls) == (1000, True, False, True)
    assert known.server == "exim"
    assert facts(known, DOMAIN, Asked(), said()) == known


def test_late_rejection() -> None:
    """Unknown after the dot marks a late rejecter, unknown at RCPT takes the mark away; callouts are held."""
    late = rejects_late(OPEN, DOMAIN, 5.0, late=True)
    assert hold(Asked(), late, known=True, now=0.0) == "late_reject"
    assert facts(late, DOMAIN, Asked(), said()).callouts is Callouts.LATE_REJECT
    assert rejects_late(late, DOMAIN, 6.0, late=False).callouts is Callouts.OPEN
    assert rejects_late(OPEN, DOMAIN, 6.0, late=False) == OPEN


def test_pace() -> None:
    """A burst is free, then as many a second as agreed, counted over all domains of an address."""
    pace, wait_s = paced(None, int(PACE_BURST), 100.0)
    assert wait_s == 0
    pace, wait_s = paced(pace, int(PACE_PER_S), 100.0)
    assert wait_s == 1.0
    pace, wait_s = paced(pace, 1, 100.0 + 1 + PACE_BURST)
    assert wait_s == 0
