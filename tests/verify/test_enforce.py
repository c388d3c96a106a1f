"""What a relay domain wants refused, in verify as it runs: what is sure, of a content that came together."""

import asyncio
from pathlib import Path

from libs import topics
from libs.mail.codec import encode
from libs.mail.records import Action, Domain, Enforce, Overrides, Verdict
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.verify import sign
from tests.verify.house import at, house
from tests.verify.scene import PARTITIONS, Scene, scene, trace

ZONE = """
sender.example                 TXT "v=spf1 -all"
_dmarc.sender.example          TXT "v=DMARC1; p=reject"
"""


async def wish(here: Scene, enforce: Enforce) -> None:
    domain = Domain("office.example", 1.0, 1.0, overrides=Overrides(enforce=enforce))
    p = topics.partition_of("office.example", PARTITIONS)
    await here.log.append("domains", p, b"office.example", encode(domain), within=PATIENCE_S)


async def said(here: Scene, id_: str) -> Verdict:
    await here.send(id_)
    return await here.verdict(id_)


async def test_a_broken_content_is_refused_for_nothing(tmp_path: Path) -> None:
    """Rule 7: the mail that came together is refused; chunks that are missing, come twice or cannot be read
    are our fault, and SPF, which fails all the same, is no reason then."""
    async with scene(tmp_path) as here:
        here.zone.set(ZONE)
        await wish(here, Enforce.SPF)
        await here.start()
        whole = await said(here, "whole")
        assert (whole.action, whole.results["dmarc"]) == (Action.REJECT, "fail")
        await here.chunk("gap", 0, sign.MESSAGE)
        await here.chunk("gap", 2, b"c", trace(3))
        await here.chunk("repeat", 0, sign.MESSAGE)
        await here.chunk("repeat", 0, sign.MESSAGE)
        await here.chunk("repeat", 1, b"b", trace(2))
        headers = [("trace", encode(trace(1)))]
        await here.log.append("content", 0, b"error", sign.MESSAGE, within=PATIENCE_S, headers=headers)
        for id_ in ("gap", "repeat", "error"):
            verdict = await here.verdict(id_)
            assert (verdict.results["spf"], verdict.results["dmarc"]) == ("fail", "temperror"), id_
            assert (verdict.action, verdict.reply) == (Action.ACCEPT, ""), id_


async def test_a_wish_holds_at_once(tmp_path: Path) -> None:
    """Each change counts without a restart, also for a sender whose results are remembered."""
    async with scene(tmp_path) as here:
        here.zone.set(ZONE)
        await here.start()
        assert (await said(here, "nothing set")).action is Action.ACCEPT
        sent = 0
        for enforce, wanted in (
            (Enforce.DMARC, Action.REJECT),
            (Enforce.OFF, Action.ACCEPT),
            (Enforce.SPF, Action.REJECT),
        ):
            await wish(here, enforce)
            async with asyncio.timeout(PATIENCE_S):  # the table of domains is read beside the contents
                while (await said(here, f"id{sent}")).action is not wanted:
                    sent += 1
            sent += 1


async def test_a_wish_that_may_be_old_is_none(tmp_path: Path) -> None:
    """Rule 7: a refusal needs a table of domains that was read to its end within 10 s."""
    clock = Clock()
    async with at() as primary, house(tmp_path, primary, clock=clock) as it:
        assert it.known.enforced("office.example") is Enforce.OFF
        await it.add(overrides=Overrides(enforce=Enforce.DMARC))
        assert it.known.enforced("office.example") is Enforce.DMARC
        clock.advance(11)
        assert it.known.enforced("office.example") is Enforce.OFF
        await until(lambda: it.known.enforced("office.example") is Enforce.DMARC)
        await it.remove()
        await until(lambda: it.known.enforced("office.example") is Enforce.OFF)
