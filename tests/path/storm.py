"""2,000 mails while processes are killed at random moments: what both set-ups of the kill test share."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.mailing import Found, Mailing, check
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
                         MX 30 mx2.backup.example
    isp.example          MX 10 mail.isp.example
    sender.example       TXT "v=spf1 ip4:127.0.0.1 -all"
    mail.office.example  A 127.0.0.2
    mail.isp.example     A 127.0.0.3
"""
MAILS, SENDERS = 2000, 20
RECIPIENTS = tuple(f"{name}@office.example" for name in ("ann", "bob", "eve", "joe", "kim"))


class Place(NamedTuple):
    """One running installation and the primary of its relay domain."""

    backup: Running
    office: Primary


@asynccontextmanager
async def place(folder: Path, **settings: Any) -> AsyncIterator[Place]:
    """Everything started, the domain added."""
    async with AsyncExitStack() as stack:
        zone = await stack.enter_async_context(Zone(ZONE))
        office = await stack.enter_async_context(Primary(known=RECIPIENTS, address="127.0.0.2"))
        backup = await stack.enter_async_context(
            Running(folder, dns=zone.servers, dial_port=office.port, timing__probe_s="1", **settings)
        )
        said = await backup.ask("domain", "add", "office.example")
        assert said.code == 0, said.err
        yield Place(backup, office)


async def storm(
    at: Place, harm: Sequence[Callable[[], Awaitable[None]]], *, seed: int, pause_s: tuple[float, float]
) -> Found:
    """Send MAILS while each of `harm` is done once, in order, after pauses of chance; then wait until the
    primary has all that got 250."""
    chance = random.Random(seed)
    mailing = Mailing(lambda: [at.backup.smtp_port], RECIPIENTS)
    count, done = iter(range(MAILS)), asyncio.Event()

    def tokens() -> Any:
        """MAILS at least, and more for as long as harm is being done: nobody is killed in peace."""
        yield from (f"storm-{number}" for number in count)
        number = MAILS
        while not done.is_set():
            yield f"storm-{number}"
            number += 1

    async def do_harm() -> None:
        try:
            for act in harm:
                await asyncio.sleep(chance.uniform(*pause_s))  # a moment of chance is the test
                await act()
        finally:
            done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(do_harm())
        group.create_task(mailing.send(tokens(), senders=SENDERS, within=180))
    assert not mailing.refused, mailing.refused[:5]
    assert len(mailing.accepted) >= MAILS

    def arrived() -> Found:
        return check(mailing, (mail.content for mail in at.office.received))

    await at.backup.until(
        lambda: len(at.office.received) >= len(mailing.accepted) and not arrived().lost, 120
    )
    found = arrived()
    print(
        f"{len(mailing.accepted)} accepted, {found.received} received, lost {len(found.lost)}, wrongly refused "
        f"{len(mailing.refused)}, duplicates {found.duplicates}, tries again {mailing.retries}"
    )
    return found
