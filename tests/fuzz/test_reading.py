"""The second opinion of the fuzz can tell right from wrong: a check that cannot fail would show nothing."""

import asyncio
import ssl
from random import Random

import pytest

from fuzz.campaign import Outcome, difference
from fuzz.contents import FALSE_ENDS, content
from fuzz.dialogue import escaped
from fuzz.dotted import hops, meaning
from fuzz.grammar import Send, Wait, session
from fuzz.reading import Reading, Violation
from fuzz.talk import Talk
from tests.helpers.client import octets

BANNER, OK = b"220 mx1.backup.example ESMTP backupmx\r\n", b"250 2.0.0 Ok\r\n"
OPENING = [
    ("S", BANNER),
    ("C", b"HELO x\r\n"),
    ("S", b"250 mx1.backup.example\r\n"),
    ("C", b"MAIL FROM:<a@b>\r\n"),
    ("S", b"250 2.1.0 Sender ok\r\n"),
    ("C", b"RCPT TO:<ann@office.example>\r\n"),
    ("S", b"250 2.1.5 Recipient ok\r\n"),
    ("C", b"DATA\r\n"),
    ("S", b"354 go on\r\n"),
]
QUEUED = b"250 2.0.0 Ok: queued as " + b"a" * 24 + b"\r\n"


def read(said: list[tuple[str, bytes]]) -> Reading:
    """After this session."""
    reading = Reading()
    for who, line in said:
        if who == "C":
            reading.sent(line)
        elif who == "TLS":
            reading.encrypted()
        else:
            reading.replied([line])
    return reading


def test_a_mail() -> None:
    """What got 250 is known, and nothing is owed any more."""
    reading = read([*OPENING, ("C", b"a\r\n..b\r\n.\r\nNOOP\r\n"), ("S", QUEUED), ("S", OK)])
    assert not reading.owed
    assert [(each.id, each.content) for each in reading.mailed] == [("a" * 24, b"a\r\n.b\r\n")]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([("S", b"250 mx1.backup.example\r\n")], "legal is 220"),
        ([("S", b"554 5.5.0 early\r\n")], "legal is 220"),
        ([("S", BANNER), ("S", OK)], "a reply to nothing"),
        ([("S", BANNER), ("C", b"NOOP"), ("S", OK)], "a reply to nothing"),
        ([("S", BANNER), ("C", b"NOOP\r\n"), ("S", b"250 Ok\r\n")], "no enhanced code"),
        ([("S", BANNER), ("C", b"NOOP\r\n"), ("S", b"250 4.0.0 Ok\r\n")], "disagree"),
        ([("S", BANNER), ("C", b"NOOP\r\n"), ("S", b"250 2.0.0 Ok\n")], "no reply"),
        ([("S", BANNER), ("C", b"NOOP\r\n"), ("S", b"250 2.0.0 \xff\r\n")], "no reply"),
        ([("S", BANNER), ("C", b"NOOP\r\n"), ("S", b"451 4.3.0 Local error\r\n")], "trouble of its own"),
        ([("S", BANNER), ("C", b"NOOP\n"), ("S", OK)], "legal is 500 5.5.2"),
        ([("S", BANNER), ("C", b"MAIL FROM:<a@b>\r\n"), ("S", b"250 2.1.0 Ok\r\n")], "legal is 503"),
        ([("S", BANNER), ("C", b"EHLO x\r\n"), ("S", b"554 5.5.0 early\r\n")], "legal is 250"),
        ([("S", BANNER), *[("C", b"X\r\n"), ("S", b"500 5.5.2 what\r\n")] * 6], "and no 421"),
        ([("S", BANNER), ("C", b"X\r\n"), ("S", b"421 4.7.0 mx1.backup.example\r\n")], "legal is 500"),
        ([*OPENING[:5], ("C", b"DATA\r\n"), ("S", b"554 5.5.1 no\r\n"), ("C", b"X\r\n"),
          ("S", b"500 5.5.2 what\r\n")], "legal is 554 5.5.0"),
        ([*OPENING[:5], ("C", b"RCPT TO:<x@rest.example>\r\n"), ("S", b"451 4.3.2 no\r\n"),
          ("C", b"DATA\r\n"), ("S", b"554 5.5.1 no\r\n")], "legal is 451 4.5.1"),
        ([*OPENING[:5], ("C", b"DATA\r\n"), ("S", b"354 go on\r\n")], "legal is 554 5.5.1"),
        ([*OPENING[:5], ("C", b"RCPT TO:<ann@office.example>\r\n"), ("S", b"550 5.1.1 no\r\n")], "is 250"),
        ([*OPENING[:5], ("C", b"RCPT TO:<nobody@office.example>\r\n"), ("S", b"250 2.1.5 k\r\n")], "is 550"),
        ([*OPENING, ("C", b"a\r\n.\r\n"), ("S", b"554 5.4.6 loop\r\n")], "legal is 250 2.0.0"),
        ([*OPENING, ("C", b"a\r\n.\n"), ("S", QUEUED)], "legal is 554 5.6.11"),
        ([*OPENING, ("C", b"a\r\n."), ("S", QUEUED)], "a reply to nothing"),
        ([*OPENING, ("C", b"\r\n" * 40_000 + b".\r\n"), ("S", QUEUED)], "legal is 552"),
        ([*OPENING, ("C", b"X-Verdict: reject\r\n.\r\n"), ("S", QUEUED)], "legal is 550"),
        ([*OPENING, ("C", b".\r\n"), ("S", b"250 2.0.0 Ok\r\n")], "no id"),
    ],
)  # fmt: skip
def test_a_reply_that_is_wrong(said: list[tuple[str, bytes]], why: str) -> None:
    """Each is seen at the reply that is wrong, and not before."""
    read(said[:-1])
    with pytest.raises(Violation, match=why):
        read(said)


def test_an_end_without_a_word() -> None:
    """A connection may end after a reply that says so, or when the client spoke behind QUIT over TLS."""
    with pytest.raises(Violation, match="closed without a word"):
        read([("S", BANNER), ("C", b"NOOP\r\n")]).closed()
    read([("S", BANNER), ("C", b"QUIT\r\n"), ("S", b"221 2.0.0 bye\r\n")]).closed()
    mailed: list[tuple[str, bytes]] = [*OPENING[1:], ("C", b"a\r\n.\r\nQUIT\r\nNOOP\r\n")]
    for said in ([("C", b"QUIT\r\nNOOP\r\n")], mailed):
        with pytest.raises(Violation, match="closed without a word"):
            read([("S", BANNER), *said]).closed()
        reading = read([("S", BANNER), ("TLS", b""), *said])
        reading.closed()
    assert list(reading.unanswered()) == [b"a\r\n"]
    with pytest.raises(Violation, match="closed without a word"):
        read([*OPENING, ("C", b"a\r\nQUIT\r\nNOOP\r\n.\r\n")]).closed()


@pytest.mark.parametrize(
    ("wire", "state", "content"),
    [
        (b".\r\n", "ended", b""),
        (b"a\r\n.\r\nNOOP\r\n", "ended", b"a\r\n"),
        (b"..\r\n.b\r\n.\r\n", "ended", b".\r\nb\r\n"),
        (b"a\nb\n..c\r\n.\r\n", "ended", b"a\r\nb\r\n.c\r\n"),
        (b"a\r\n.", "open", b"a\r\n"),
        (b"a\r\n.\r", "open", b"a\r\n"),
        (b"a\r\n.\n", "false", b""),
        (b"a\n.\r\n", "false", b""),
        (b"a\rb", "false", b""),
        (b".\n", "false", b""),
        (b"a\x00\r\n. \r\n.\r\n", "ended", b"a\x00\r\n \r\n"),
    ],
)
def test_meaning(wire: bytes, state: str, content: bytes) -> None:
    """RFC 5321 4.5.2 and 2.3.8, read one octet after the other."""
    found = meaning(wire)
    assert (found.state, found.content) == (state, content)


def test_hops() -> None:
    """Received fields of the header only."""
    assert hops(b"received: a\r\nRECEIVED:b\r\nX-Received: c\r\n\r\nReceived: d\r\n") == 2


def test_what_is_in_the_queue() -> None:
    """Once, octet for octet, and nothing else."""
    sent = [Outcome(1, [("id", 2, "sha")], [], ""), Outcome(2, [], ["half"], "")]
    assert not difference(sent, [("id", 1, "sha")])
    assert not difference(sent, [("id", 1, "sha"), ("other", 1, "half")])
    assert "is not in the queue" in difference(sent, [])
    assert "other octets" in difference(sent, [("id", 1, "else")])
    assert "never got 250" in difference(sent, [("id", 1, "sha"), ("id", 1, "sha")])
    assert "never got 250" in difference(sent, [("id", 1, "sha"), ("a", 1, "half"), ("b", 1, "half")])
    assert "3 recipients" in difference(sent, [("id", 3, "sha")])


def test_a_session_comes_again() -> None:
    """The same seed gives the same session; many seeds give all kinds of steps."""
    assert session(Random("a/1")) == session(Random("a/1"))
    steps = [step for number in range(500) for step in session(Random(f"a/{number}"))]
    assert {type(step).__name__ for step in steps} == {"Send", "Wait", "Tls", "Close"}
    told = [meaning(content(Random(f"{number}"))).state for number in range(2000)]
    assert {state: told.count(state) > 40 for state in set(told)} == dict.fromkeys(
        ("ended", "false", "open"), True
    )
    assert all(octets(escaped(end)) == end for end in FALSE_ENDS)


async def test_a_server_that_errs_is_found() -> None:
    """Over a socket: a server that says too much, too little, or two things at once."""
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(said)
        if len(said) > 1:
            assert (await reader.readline(), await reader.readline()) == (b"NOOP\r\n", b"QUIT\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for says, why in (
            ([BANNER, OK, OK], "legal is 221"),
            ([BANNER], "closed without a word"),
            ([BANNER, OK, b"221 2.0.0 bye\r\n", OK], "after its last reply"),
        ):
            said[:] = says
            talk = Talk(port, "127.0.0.1", ssl.create_default_context())
            with pytest.raises(Violation, match=why):
                await talk.play([Wait(), Send(b"NOOP\r\n"), Wait()])
