"""The dialogue and its limits, driven by anything at all."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail import replies
from libs.mail.address import Mailbox
from libs.mail.records import Basis, ContentRef
from libs.mail.replies import Receipt
from libs.mail.reply import Reply
from services.ingest.content import Budget
from services.ingest.effects import (
    AskRcpt,
    Commit,
    Committed,
    Content,
    ContentEnd,
    Input,
    Interrupted,
    Line,
    RcptAnswer,
    ReadContent,
    Refused,
    Say,
    SayAndClose,
    StartTls,
    TlsStarted,
)
from services.ingest.facts import Accept, Envelope
from services.ingest.limits import COMMAND_OCTETS, Limits
from services.ingest.patience import FULL_PATIENCE
from services.ingest.session import Session, ahead, step

LIMITS = Limits("mx1.backup.example", ("PIPELINING",), 1000, max_errors=5, max_recipients=3, tls=True)
ACCEPTED = Accept("office.example", "office.example", "ann@office.example", Basis.DELIVERABLE, "cache")
CONTENT = Content("id", ContentRef(0, (0,), 1), b"", 0.0, 0.0, 0.0)

words = st.sampled_from(
    b"""EHLO x|HELO x|MAIL FROM:<a@b.example>|MAIL FROM:<> SIZE=10|MAIL FROM:<a@b.example> SIZE=9999
    RCPT TO:<ann@office.example>|RCPT TO:<bob@office.example> NOTIFY=NEVER|RCPT TO:<postmaster>|DATA|RSET
    QUIT|STARTTLS|NOOP|VRFY x|HELP""".replace(b"\n    ", b"|").split(b"|")
)
anything = st.one_of(words, words, words, st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")))


@given(st.lists(st.tuples(anything, st.booleans(), st.booleans()), max_size=40))
def test_any_dialogue_keeps_its_rules(lines: list[tuple[bytes, bool, bool]]) -> None:
    """Whatever is said: one reply a command, content only for accepted recipients, the count of errors ends
    the session, and nothing said before STARTTLS is known after it."""
    state = Session(helo="x", extended=True)
    for octets, good, more in lines:
        got: Input = Line(octets, more)
        for _ in range(4):
            state, effect = step(state, got, LIMITS)
            match effect:
                case Say(reply=reply):
                    assert reply is None or reply.code < 600
                    break
                case SayAndClose():
                    return
                case StartTls():
                    got = TlsStarted("TLSv1.3")
                    state, effect = step(state, got, LIMITS)
                    assert state == Session(tls="TLSv1.3", errors=state.errors)
                    assert effect == Say(None)
                    break
                case AskRcpt():
                    got = RcptAnswer(ACCEPTED if good else replies.UNKNOWN_RECIPIENT)
                case ReadContent(envelope=envelope):
                    assert envelope.recipients
                    got = ContentEnd(CONTENT) if good else ContentEnd(None, replies.LOOP)
                case Commit():
                    got = Committed(Receipt("id")) if good else Refused(replies.NOT_STORED)
        assert state.errors < LIMITS.max_errors
        assert state.mail is None or len(state.mail.recipients) <= LIMITS.max_recipients


def test_our_own_exception_resets_the_transaction() -> None:
    """451 4.3.0, no class name, the session goes on without the transaction."""
    state = Session(helo="x", mail=Envelope("a@b.example"))
    state, effect = step(state, Interrupted.OURS, LIMITS)
    assert (state.mail, effect) == (None, Say(replies.OUR_FAULT))


@pytest.mark.parametrize("line", [b"RCPT TO:<a@b.example>", b"DATA"])
def test_the_rest_of_a_group_is_not_to_blame_for_our_exception(line: bytes) -> None:
    """RFC 2920: RCPT and DATA behind the command that we failed at are there already. A 503 for them would be
    a bounce: of this recipient, or of those that had their 250."""
    state = Session(helo="x", mail=Envelope("a@b.example", domain="b.example"))
    state, _ = step(state, Interrupted.OURS, LIMITS)
    after, effect = step(state, Line(line, more=False), LIMITS)
    assert effect == Say(replies.OUR_FAULT, line[:4].decode())
    assert after.errors == 0
    _, effect = step(state, Line(b"DATA", more=True), LIMITS)
    assert effect == SayAndClose(replies.EARLY_NOW, "DATA")  # whoever sends the content at once
    for again in (b"RSET", b"EHLO x"):
        fresh, _ = step(state, Line(again, more=False), LIMITS)
        _, effect = step(fresh, Line(line, more=False), LIMITS)
        assert effect == Say(replies.MAIL_FIRST, line[:4].decode())
    fresh, _ = step(state, Line(b"MAIL FROM:<a@b.example>", more=False), LIMITS)
    assert fresh.mail is not None


def test_an_early_line_is_too_long_by_one() -> None:
    """COMMAND_OCTETS counts the CR LF."""
    assert isinstance(step(Session(), Line(b"x" * (COMMAND_OCTETS - 2), more=False), LIMITS)[1], Say)
    assert isinstance(step(Session(), Line(b"x" * (COMMAND_OCTETS - 1), more=False), LIMITS)[1], SayAndClose)


def test_ahead_stops_where_rcpt_ends() -> None:
    """Only RCPTs at the front are asked about early; one that is malformed is passed over."""
    state = Session(helo="x", mail=Envelope(""))
    lines = [
        b"rcpt to:<a@b.example>",
        b"RCPT TO:<bad",
        b"RCPT TO:<c@d.example> NOTIFY=NEVER",
        b"DATA",
        b"RCPT TO:<e@f.example>",
    ]
    assert ahead(state, lines) == (Mailbox("a", "b.example"), Mailbox("c", "d.example"))
    assert ahead(Session(helo="x"), lines) == ()


def test_patience_lets_one_through_every_so_often() -> None:
    """After three time-outs nobody waits but one every 15 s; an answer gives all patience back."""
    patience = FULL_PATIENCE
    for _ in range(3):
        assert patience.waits(0.0)
        patience = patience.began(0.0).timed_out(0.0)
    assert not patience.waits(14.9)
    assert patience.waits(15.0)
    assert not patience.began(15.0).waits(15.0)


def test_a_policy_reply_is_made_safe() -> None:
    """A verdict's words are used only with a code that fits, and cannot break a line."""
    assert replies.policy("5.7.1 No", permanent=True) == Reply(550, "5.7.1", "No")
    assert replies.policy("4.7.0 Later", permanent=True) == replies.REJECTED
    assert replies.policy("Later", permanent=False) == replies.DEFERRED
    assert (
        replies.policy("5.7.1 a\r\n250 ok ü", permanent=True).wire() == b"550 5.7.1 a\\x0d\\x0a250 ok ?\r\n"
    )


async def test_the_budget_serves_in_order() -> None:
    """Who finds no room waits in line; a small wish does not overtake a large one; more than all is given
    when nothing else is held."""
    budget = Budget(100)
    assert budget.take_now(60)
    large = asyncio.ensure_future(budget.take(70))
    small = asyncio.ensure_future(budget.take(10))
    await asyncio.sleep(0)
    assert not budget.take_now(1)
    assert (large.done(), small.done()) == (False, False)
    budget.give(60)
    await asyncio.sleep(0)
    assert (large.done(), small.done(), budget.used) == (True, True, 80)
    budget.give(80)
    assert budget.take_now(500)
    assert budget.used == 500


@pytest.mark.parametrize(("used", "size"), [(0, 960_000), (50, 480_000), (94, 64_000), (100, 64_000)])
def test_chunks_shrink_as_the_budget_fills(used: int, size: int) -> None:
    """Rule 13: 960 kB while there is room, 64 kB when there is none."""
    budget = Budget(100)
    assert budget.take_now(used)
    assert budget.chunk == size
