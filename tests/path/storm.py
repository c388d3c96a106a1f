"""2,000 mails while processes are killed at random moments: what both set-ups of the kill test share."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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

Harm = Callable[[], Awaitable[None]]


class Place(NamedTuple):
    """One running installation and the primary of its relay domain."""

    backup: Running
    office: Primary

    def killing(self, name: str) -> Harm:
        """kill -9, a new process, and waiting until it is ready."""

        async def kill() -> None:
            await self.backup.kill(name)
            await self.backup.start(name)
            await self.backup.ready(name)

        return kill


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


async def storm(at: Place, harm: Sequence[Harm], *, seed: int) -> Found:
    """Send MAILS, and more for as long as harm is being done, while each of `harm` is done once, in order,
    after pauses of chance; then wait until the primary has all that got 250."""
    chance = random.Random(seed)
    mailing = Mailing(lambda: [at.backup.smtp_port], RECIPIENTS)
    harmed = asyncio.Event()

    def tokens() -> Iterator[str]:
        numbers = itertools.count()
        return (
            f"storm-{n}" for n in itertools.takewhile(lambda n: n < MAILS or not harmed.is_set(), numbers)
        )

    async def do_harm() -> None:
        for act in harm:
            await asyncio.sleep(chance.uniform(0.2, 2.0))  # a moment of chance is the test
            await act()
        harmed.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(do_harm())
        group.create_task(mailing.send(tokens(), senders=SENDERS, within=180))

    def arrived() -> Found:
        return check(mailing, (mail.content for mail in at.office.received))

    enough = len(mailing.accepted)
    await at.backup.until(lambda: len(at.office.received) >= enough and not arrived().lost, within=120)
    found = arrived()
    print(
        f"accepted {enough}, lost {len(found.lost)}, altered {len(found.altered)}, wrongly refused "
        f"{len(mailing.refused)}, duplicates {found.duplicates}, tries again {mailing.retries}"
    )
    assert enough >= MAILS
    assert not mailing.refused, mailing.refused[:5]
    return found
