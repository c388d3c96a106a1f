"""Primaries that are none: whatever is at the other end, the recipient stays unknown, within bounded time,
octets and connections, and without an error of ours."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from libs.mail.knowledge import Callouts, RecipientTry, Status
from libs.smtp.client import CALLOUT
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S
from tests.helpers.primary import Primary
from tests.verify.house import ANN, BOB, EVE, House, at, house

QUICK = CALLOUT._replace(
    connect_s=0.4, banner_s=0.4, ehlo_s=0.4, starttls_s=0.4, mail_s=0.4, rcpt_s=0.4, quit_s=0.2, verify_s=0.8
)
NOISE = "!raw " + "".join(chr(octet) for octet in range(256)) * 40
HTTP = "!raw HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>220 ok</html>\r\n"
PAGE = "!raw <!DOCTYPE html>\r\n"
MOST_OCTETS = 4 * 2**20  # what lies in the buffers of two kernels, and one reply


@asynccontextmanager
async def asked(tmp_path: Path, primary: Primary) -> AsyncIterator[House]:
    """A house whose log lines hold no error at the end, and whose connections are all closed."""
    with capture_logs() as lines:
        async with house(tmp_path, primary, timeouts=QUICK) as it:
            await it.add()
            yield it
            await primary.until(lambda: not primary.open_visits)
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []


async def outcome(it: House, mailbox: str = ANN) -> str:
    answer = await it.ask(mailbox)
    assert isinstance(answer, RecipientTry)
    assert it.status(mailbox) is None
    return answer.last_outcome


@pytest.mark.parametrize(
    ("stage", "pipelining"),
    [("BANNER", True), ("EHLO", True), ("MAIL", True), ("MAIL", False), ("RCPT", True), ("RCPT", False)],
)
@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("!endless", {"malformed"}),
        ("!drip", {"unreachable"}),
        ("!silent", {"unreachable"}),
        (NOISE, {"malformed"}),
        (HTTP, {"malformed"}),
        (PAGE, {"malformed"}),
        ("!raw \0\0\0\0\r\n", {"malformed"}),
        ("!raw " + "2" * 70_000, {"malformed"}),
        ("!raw 550-5.1.1 user\r\n250 unknown\r\n", {"malformed"}),
        ("!drop", {"closed"}),
        ("!cut 550 5.1.1 user unkn", {"closed"}),
        ("!cut 550-5.1.1 user unknown\r\n", {"closed"}),
        ("!cut 2", {"closed"}),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_no_reply_at_any_stage(
    tmp_path: Path, stage: str, says: str, words: set[str], pipelining: bool
) -> None:
    """Endless, dripping, silent, binary, another protocol, half a reply, none: a word for it, no status."""
    primary = at() if pipelining else at(capabilities=("8BITMIME",))
    async with primary, asked(tmp_path, primary) as it:
        primary.say(stage, says)
        assert await outcome(it) in words
        assert all(visit.sent < MOST_OCTETS for visit in primary.visits)
        assert len(primary.visits) == 1


@pytest.mark.parametrize("extra", ["220 again", "250 ok", "550 5.1.1 user unknown", "noise"])
async def test_who_talks_before_ehlo_is_dialled_once(tmp_path: Path, extra: str) -> None:
    """A greeting with more behind it: nothing that is said from there on can be told apart; it is not dialled
    again and again."""
    async with at() as primary, asked(tmp_path, primary) as it:
        primary.say("BANNER", f"!raw 220 mx.office.example ESMTP\r\n{extra}\r\n")
        assert await outcome(it) in ("malformed", "closed")
        assert await outcome(it, BOB) in ("malformed", "closed")
        assert len(primary.visits) == 1


async def test_our_own_name_at_the_other_end(tmp_path: Path) -> None:
    """A server that answers EHLO with a name of ours is us, at an address that nobody told us of: asking it
    would go round."""
    for name in ("mx1.backup.example", "MX1.backup.EXAMPLE"):
        folder = tmp_path / name
        folder.mkdir()
        async with at(name=name) as primary, asked(folder, primary) as it:
            assert await outcome(it) == "ourselves"
            assert not [c for visit in primary.visits for c in visit.commands if c.startswith("MAIL")]


async def test_a_tarpit_holds_up_nobody_for_long(tmp_path: Path) -> None:
    """Each reply comes at the last moment: one session answers what it can, the rest hears that it is not
    reachable, and no question waits longer than its asker."""
    async with at() as primary, asked(tmp_path, primary) as it:
        primary.slow(0.3)
        names = [f"user{number}@office.example" for number in range(40)]
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(it.ask(name) for name in names))
        assert len(primary.visits) <= 2
        assert all(it.tried(name) or it.status(name) for name in names)


async def test_a_tarpit_at_mail_is_dialled_once_for_all(tmp_path: Path) -> None:
    """Nobody waits for another time-out when the first session did not get to RCPT."""
    async with at() as primary, asked(tmp_path, primary) as it:
        primary.say("MAIL", "!silent")
        names = [f"user{number}@office.example" for number in range(40)]
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(it.ask(name) for name in names))
        assert len(primary.visits) == 1
        assert {tried.last_outcome for name in names if (tried := it.tried(name))} == {"unreachable"}


async def test_floods_of_replies_take_no_memory(tmp_path: Path) -> None:
    """Ten endless replies one after the other: what they sent is not kept."""
    async with at() as primary, asked(tmp_path, primary) as it:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        primary.say("RCPT", "!endless")
        for number in range(10):
            await it.ask(f"user{number}@office.example")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
        assert it.facts() is None or it.facts().callouts is Callouts.OPEN  # type: ignore[union-attr]


async def test_an_address_that_is_never_dialled(tmp_path: Path) -> None:
    """The MX names a forbidden address, or our own: no connection, a word for it."""
    for word, address in (("forbidden", "10.0.0.1"), ("no primary", "127.0.0.9")):
        folder = tmp_path / word.replace(" ", "")
        folder.mkdir()
        zone = f"office.example MX 10 mx.office.example\nmx.office.example A {address}"
        async with at() as primary, house(folder, primary, zone=zone, timeouts=QUICK) as it:
            await it.add()
            assert await outcome(it, EVE) == word
            assert primary.visits == []


async def test_a_question_that_was_asked_twice_is_answered_once(tmp_path: Path) -> None:
    """A primary that is slower than anybody waits: the question comes again meanwhile, one answer is for
    both."""
    clock = Clock()
    async with at() as primary:
        with capture_logs() as lines:
            async with house(tmp_path, primary, clock=clock, timeouts=QUICK) as it:
                await it.add()
                primary.say("RCPT", "!silent")
                first = asyncio.create_task(it.ask(ANN))
                await primary.until(lambda: any(visit.commands for visit in primary.visits))
                clock.advance(61)
                await it.ask(ANN)
                await first
                clock.advance(61)
                primary.say("RCPT", "")
                await it.ask(BOB)
                assert it.status(BOB) is Status.DELIVERABLE
        assert [line for line in lines if line["log_level"] in ("error", "critical")] == []
