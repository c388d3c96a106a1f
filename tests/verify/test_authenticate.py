"""Running the methods: what is remembered, what is awaited, what takes too long, what our own bugs cost."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing

from libs.mail.records import Trace, Verdict
from libs.runtime.dns import Dns
from services.verify import dkim, identities, spf
from services.verify.assemble import Part
from services.verify.authenticate import HEAVY, Authenticator
from services.verify.content import Assembled
from services.verify.heavy import Pool
from services.verify.spill import Elsewhere, Spill
from tests.helpers.clock import Clock
from tests.helpers.zone import Zone
from tests.verify import sign
from tests.verify.sign import zone_text

ZONE = """
sender.example                 TXT "v=spf1 ip4:192.0.2.0/24 -all"
personal.example               TXT "v=spf1 exists:%{l}.u.personal.example -all"
bob.u.personal.example         A 127.0.0.2
ed._domainkey.sender.example   TXT {ed25519}
slow.example                   !timeout
slow._domainkey.sender.example !timeout
"""
SIGNED = ["sign ed25519 d=sender.example s=ed"]
PASSED = {"spf": "pass", "dkim": "pass", "dmarc": "none", "arc": "none"}


class Room:
    """An authenticator on a zone, with a clock that only moves when told to."""

    def __init__(self, zone: Zone, within_s: float, limit_s: float) -> None:
        self.zone, self.clock = zone, Clock()
        self.dns = Dns(zone.servers, self.clock, 3)
        self.pool = Pool(limit_s=limit_s)
        self.authenticator = Authenticator(
            self.dns, self.clock, self.pool, authserv_id="mx1.backup.example", hosts=[], within_s=within_s
        )

    async def verdict(self, content: bytes, sender: str = "bob@sender.example") -> Verdict:
        return await self.authenticator.verdict("id1", trace(sender), Assembled((content,), Spill(None)))

    def now(self, content: bytes, sender: str = "bob@sender.example") -> Verdict | None:
        return self.authenticator.now("id1", trace(sender), content)


def trace(sender: str) -> Trace:
    return Trace(1, "office.example", "192.0.2.1", "mail.sender.example", sender)


@asynccontextmanager
async def room(within_s: float = 5.0, limit_s: float = 10.0) -> AsyncIterator[Room]:
    async with Zone(zone_text(ZONE)) as zone:
        made = Room(zone, within_s, limit_s)
        try:
            yield made
        finally:
            await made.dns.close()
            await made.pool.close()


async def test_what_dns_has_said_is_answered_at_once() -> None:
    """Unknown DNS has to be awaited; once it is known the verdict needs no await and no question."""
    async with room() as here:
        assert here.now(sign.MESSAGE) is None
        first = await here.verdict(sign.MESSAGE)
        asked = len(here.zone.questions)
        assert here.now(sign.MESSAGE) == first
        assert here.now(sign.MESSAGE, "eve@sender.example") == first
        assert len(here.zone.questions) == asked


async def test_a_personal_result_is_remembered_for_its_mailbox_only() -> None:
    """A record that names the local part passes one mailbox and fails the other."""
    async with room() as here:
        bob = await here.verdict(sign.MESSAGE, "bob@personal.example")
        eve = await here.verdict(sign.MESSAGE, "eve@personal.example")
        assert (bob.results["spf"], eve.results["spf"]) == ("pass", "fail")
        assert here.now(sign.MESSAGE, "bob@personal.example") == bob
        assert here.now(sign.MESSAGE, "eve@personal.example") == eve


async def test_a_result_is_forgotten_when_its_answers_end() -> None:
    """A changed record counts as soon as the old answer's time to live is over."""
    async with room() as here:
        assert (await here.verdict(sign.MESSAGE)).results["spf"] == "pass"
        here.zone.set('sender.example TXT "v=spf1 -all"')
        assert here.now(sign.MESSAGE) is not None
        here.clock.advance(400)
        assert here.now(sign.MESSAGE) is None
        assert (await here.verdict(sign.MESSAGE)).results["spf"] == "fail"


async def test_slow_dns_ends_at_the_time_limit() -> None:
    """RFC 7208 section 4.6.4: an evaluation that takes too long is a temperror; so is a key that is late."""
    async with room(within_s=0.1) as here:
        verdict = await here.verdict(sign.made(["sign ed25519 d=sender.example s=slow"]), "bob@slow.example")
        assert verdict.results == {"spf": "temperror", "dkim": "temperror", "dmarc": "none", "arc": "none"}
        assert not verdict.may_notify
        assert (await here.verdict(sign.made(SIGNED))).results == PASSED


async def test_a_heavy_body_goes_to_the_pool() -> None:
    """A large signed body is verified in another process, with the same result; it is never done at once."""
    content = sign.made([*SIGNED]) + b""
    head = content[: content.index(b"\r\n\r\n") + 4]
    large = head + b"some words of a large body\r\n" * (HEAVY // 20)
    async with room() as here:
        verdict = await here.verdict(large)
        assert verdict.results["dkim"] == "fail"
        assert b'reason="body has changed"' in verdict.fields
        assert here.now(large) is None
        assert (await here.verdict(head + sign.MESSAGE.partition(b"\r\n\r\n")[2])).results["dkim"] == "pass"


async def test_a_large_body_without_signature_is_answered_at_once() -> None:
    """Without a signature the body is not looked at, whatever its size."""
    large = sign.MESSAGE + b"some words of a large body\r\n" * (HEAVY // 20)
    async with room() as here:
        first = await here.verdict(large)
        assert here.now(large) == first


async def test_work_that_takes_too_long_is_a_temperror() -> None:
    """A body that the pool does not finish in time costs its sender a temperror, not a fail."""
    content = sign.made(SIGNED) + b"a " * (8 * 2**20) + b"\r\n"
    async with room(limit_s=0.0001) as here:
        verdict = await here.verdict(content)
        assert verdict.results["dkim"] == "temperror"
        assert b'reason="verification took too long"' in verdict.fields


async def test_a_header_that_could_not_be_read_is_told() -> None:
    """A verdict on a header that the pool has not read to its end in time names no forged fields, and says
    that it would not know of any; so does one on a content of which chunks are missing."""
    forged = b"Authentication-Results: mx1.backup.example; spf=pass\r\n"
    huge = b"X-Pad: " + b"y" * 8 * 2**20 + b"\r\n" + forged + sign.MESSAGE
    async with room(limit_s=0.0001) as here:
        verdict = await here.verdict(huge)
        assert (verdict.unread, verdict.strip, verdict.results["dkim"]) == (True, (), "temperror")
        verdict = await here.verdict(forged + sign.made(SIGNED) + b"a " * (8 * 2**20) + b"\r\n")
        assert (verdict.unread, verdict.strip, verdict.results["dkim"]) == (
            False,
            ((0, len(forged)),),
            "temperror",
        )
        lost = await here.authenticator.without_content("id1", trace("bob@sender.example"), "chunk missing")
        assert lost.unread
    async with room() as here:
        assert not (await here.verdict(huge)).unread


async def test_forged_results_in_a_huge_header_are_found() -> None:
    """A header too large to be authenticated is searched all the same, in the pool."""
    forged = b"Authentication-Results: mx1.backup.example; spf=pass\r\n"
    content = b"X-Pad: " + b"y" * 200_000 + b"\r\n" + forged + sign.MESSAGE
    async with room() as here:
        verdict = await here.verdict(content)
        assert [content[start:end] for start, end in verdict.strip] == [forged]
        assert verdict.results["dkim"] == "permerror"
        assert here.now(content) is None


async def test_content_that_did_not_come_together() -> None:
    """SPF needs no content; what needs it is temperror, with the reason."""
    async with room() as here:
        verdict = await here.authenticator.without_content(
            "id1", trace("bob@sender.example"), "chunk missing"
        )
        assert verdict.results == {"spf": "pass", "dkim": "temperror", "dmarc": "temperror", "arc": "none"}
        assert verdict.may_notify


async def test_a_bug_of_ours_is_a_temperror(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 7: an exception of the evaluation itself is logged and says temperror, for its method only."""

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    async with room() as here:
        monkeypatch.setattr(spf, "check_host", broken)
        with structlog.testing.capture_logs() as logs:
            verdict = await here.verdict(sign.made(SIGNED))
        assert verdict.results == PASSED | {"spf": "temperror"}
        assert {line["event"] for line in logs} == {"SPF evaluation failed"}
        monkeypatch.undo()
        monkeypatch.setattr(dkim, "verify", broken)
        with structlog.testing.capture_logs() as logs:
            verdict = await here.verdict(sign.made(SIGNED))
        assert verdict.results == PASSED | {"dkim": "temperror"}
        assert [line["event"] for line in logs] == ["the signatures of a message could not be verified"]


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest result goes when there is no room."""
    monkeypatch.setattr(identities, "_REMEMBERED", 4)
    async with room() as here:
        await asyncio.gather(*(here.verdict(sign.MESSAGE, f"a@d{number}.example") for number in range(10)))
        assert len(here.authenticator._identities._results) == 4
        authors = (sign.made([f"author a@d{number}.example"]) for number in range(10))
        await asyncio.gather(*(here.verdict(message) for message in authors))
        assert len(here.authenticator._identities._authors) == 4


async def test_a_policy_is_forgotten_when_its_answers_end() -> None:
    """A DMARC record that changed counts as soon as the old one's time to live is over; until then nobody is
    asked, whoever of the domain writes."""
    async with room() as here:
        here.zone.set('_dmarc.sender.example TXT "v=DMARC1; p=reject"')
        assert (await here.verdict(sign.MESSAGE)).results["dmarc"] == "fail"
        here.zone.set("")
        asked = len(here.zone.questions)
        other = here.now(sign.made(["author eve@SENDER.example"]))
        assert other is not None
        assert other.results["dmarc"] == "fail"
        assert len(here.zone.questions) == asked
        here.clock.advance(400)
        assert (await here.verdict(sign.MESSAGE)).results["dmarc"] == "none"


async def test_slow_dns_of_an_attacker_saves_nobody() -> None:
    """Whose SPF record and key never come takes all the time there is; what the author's domain wishes was
    found out meanwhile."""
    policy = '_dmarc.sender.example 60 TXT "v=DMARC1; p=reject"\n'
    slow = "evil.test !timeout\ned._domainkey.evil.test !timeout\n"
    async with room(within_s=0.3) as here:
        here.zone.set(policy + slow)
        verdict = await here.verdict(sign.made(["sign ed25519 d=evil.test s=ed"]), "eve@evil.test")
        assert verdict.results == {"spf": "temperror", "dkim": "temperror", "dmarc": "fail", "arc": "none"}


async def test_a_header_that_is_not_read_has_no_author() -> None:
    """Over 128 kB of header, or 500 fields: permerror, and so nothing that could be refused."""
    async with room() as here:
        here.zone.set('_dmarc.sender.example TXT "v=DMARC1; p=reject"')
        for more in (b"X-Pad: " + b"y" * 130_000 + b"\r\n", b"X: y\r\n" * 500):
            verdict = await here.verdict(more + sign.MESSAGE)
            assert verdict.results["dmarc"] == "permerror"
            assert b"dmarc=permerror reason=" in verdict.fields


class Counted(Assembled):
    """`most`: how many were given to the pool at once."""

    now = most = 0

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[Elsewhere]:
        Counted.now += 1
        Counted.most = max(Counted.most, Counted.now)
        async with super().elsewhere() as content:
            yield content
        Counted.now -= 1

    async def whole(self) -> bytes:
        raise AssertionError("a large content is in memory")


LARGE = {
    "unsigned": (0, b"From: <bob@sender.example>\r\nSubject: x\r\n\r\n", "none"),
    "signed": (
        1,
        b"From: <bob@sender.example>\r\nSubject: x\r\n"
        b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.example; s=none; h=from; bh=eA==; b=eA==\r\n\r\n",
        "permerror",
    ),
    "a header without end": (1, b"From: <bob@sender.example>\r\n", "permerror"),
}


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("spilled", [False, True])
async def test_large_contents_are_not_in_memory(kind: str, spilled: bool, tmp_path: Path) -> None:
    """Of an unsigned mail only the header is read, however large it is and however many come at once; the
    others are read by the pool, one after the other, and those that wait hold next to nothing."""
    most, head, dkim_result = LARGE[kind]
    parts: tuple[Part, ...] = (head + b"x" * 200_000, *[b"y" * 500_000] * 4)
    spill = Spill(tmp_path)
    Counted.now = Counted.most = 0
    async with room() as here:
        messages = []
        for _ in range(20):
            spilled_parts = (spill.must_write(part) for part in parts if isinstance(part, bytes))
            messages.append(Counted(tuple(spilled_parts) if spilled else parts, spill))
        tracemalloc.start()
        try:
            verdicts = await asyncio.gather(
                *(
                    here.authenticator.verdict(f"id{n}", trace("bob@sender.example"), m)
                    for n, m in enumerate(messages)
                )
            )
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    spill.close()
    assert {verdict.results["dkim"] for verdict in verdicts} == {dkim_result}
    assert Counted.most == most
    assert peak < 20 * 200_000
