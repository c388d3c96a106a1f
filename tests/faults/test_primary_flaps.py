"""The primary comes and goes every few hundred milliseconds: nobody hears a no for ever, nothing is lost."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.faults.scene import ZONE
from tests.helpers.mailing import Mailing, check
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

RECIPIENTS = [f"{name}@office.example" for name in ("ann", "bob", "eve", "joe", "kim")]
SENDERS, EACH = 10, 60  # mails that we took, at least


@asynccontextmanager
async def flapping(primary: Primary) -> AsyncIterator[None]:
    """Up and down inside the block; up after it."""

    async def flap() -> None:
        chance = random.Random(1)
        while True:
            await primary.down()
            await asyncio.sleep(chance.uniform(0.1, 0.5))  # moments of chance are the fault
            await primary.up()
            await asyncio.sleep(chance.uniform(0.1, 0.5))

    task = asyncio.create_task(flap())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        await primary.up()
    assert task.cancelled()


@pytest.mark.parametrize("admission", [pytest.param("fallback", marks=pytest.mark.long), "always"])
async def test_a_primary_that_flaps(tmp_path: Path, admission: str) -> None:
    """Senders try the primary, then us, again and again, as real ones do; whatever got its 250, from the
    primary or from us, is there at the end, and nobody was told that he need not try again."""
    async with (
        Zone(ZONE.replace("127.0.0.2", "127.0.0.1")) as zone,
        Primary(known=RECIPIENTS) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, timing__probe_s="0.2") as running,
    ):
        said = await running.ask("domain", "add", "office.example", "--admission", admission)
        assert said.code == 0, said.err
        mailing = Mailing(lambda: (primary.port, running.smtp_port), RECIPIENTS)

        fallback = admission == "fallback"

        def tokens() -> Iterator[str]:
            """More, until we took enough and sent somebody back."""
            numbers = count()
            while len(running.events("Reception")) < EACH or (fallback and not mailing.replies["451"]):
                yield f"flap{next(numbers)}"

        async with flapping(primary):
            await mailing.send(tokens(), senders=SENDERS, within=200)

        def missing() -> list[str]:
            return check(mailing, (b"\r\n" + mail.content for mail in primary.received)).lost

        await running.until(lambda: not missing())
        assert mailing.refused == []
        assert not check(mailing, (b"\r\n" + mail.content for mail in primary.received)).altered
        assert not running.events("Bounce")
        assert not running.events("Rejection", code=550)
        sent_back = await running.metric("solo", "backupmx_sent_back_total")
        assert (sent_back > 0) is fallback
        assert primary.violations == []
