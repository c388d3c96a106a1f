"""A relay domain is removed and added again, perhaps for another owner: nothing that was known of its
recipients counts any more, however late it is written."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from libs import topics
from libs.mail.codec import encode
from libs.mail.knowledge import (
    Allowed,
    Callouts,
    Imported,
    Observed,
    PrimaryFacts,
    RecipientRecord,
    RecipientStatus,
    RecipientTry,
    Status,
)
from tests.helpers.client import Client
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone
from tests.verify.house import ANN, BOB, EVE, PARTITIONS, House, asked, at, house
from tests.verify.test_cache_faults import both, log_of, newest

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
"""
DOMAIN, DENIED = "office.example", "550 5.1.1 no such user"
LOGS = pytest.mark.parametrize(
    "kind", ["solo", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))]
)


@LOGS
async def test_the_next_owner(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """Who the first owner had, who he had not, and whom the operator allowed for him: all are asked about."""
    kafka = request.getfixturevalue("broker") if kind == "kafka" else ()
    file = tmp_path / "list"
    file.write_text(f"{ANN}\n{BOB}\n")
    recipients = ("domain", "recipients")
    async with AsyncExitStack() as stack:
        zone = await stack.enter_async_context(Zone(ZONE))
        primary = await stack.enter_async_context(Primary(address="127.0.0.2", known={ANN}))
        running = await stack.enter_async_context(
            Running(tmp_path, dns=zone.servers, dial_port=primary.port, kafka=kafka)
        )
        await running.ask("domain", "add", DOMAIN)
        said = await running.ask(*recipients, "import", DOMAIN, str(file))
        assert said.out == f"{DOMAIN}: 2 imported: 1 deliverable, 1 undeliverable\n"
        assert (await running.ask(*recipients, "allow", DOMAIN, EVE)).code == 0
        assert (await running.ask("domain", "remove", DOMAIN)).code == 0
        primary.known = {BOB}
        assert (await running.ask("domain", "add", DOMAIN)).code == 0
        assert (await running.ask(*recipients, "list", DOMAIN, "--json")).rows == []
        (shown,) = (await running.ask("domain", "show", DOMAIN, "--json")).rows
        assert (shown["recipients"], shown["callouts"]) == (0, "unknown")

        async def answers() -> list[str]:
            replies = []
            async with Client(running.smtp_port) as client:
                await client.greet()
                await client.send(b"MAIL FROM:<eve@sender.example>\r\n")
                await client.reply()
                for name in (ANN, BOB, EVE):
                    await client.send(f"RCPT TO:<{name}>\r\n".encode())
                    replies.append((await client.reply())[:3])
            return replies

        await until(lambda: answers_are(answers, ["550", "250", "550"]))
        said = await running.ask(*recipients, "import", DOMAIN, str(file))
        assert said.out == f"{DOMAIN}: 2 imported: 1 deliverable, 1 undeliverable\n"
        assert (await running.ask(*recipients, "export", DOMAIN)).out == f"{BOB}\n"


async def answers_are(answers: object, wanted: list[str]) -> bool:
    """While ingest has not seen the new domain it says 451."""
    found = await answers()  # type: ignore[operator]
    assert set(found) <= {*wanted, "451"}
    return bool(found == wanted)


async def write(it: House, record: RecipientRecord) -> None:
    """As somebody who lost his claim does it late."""
    key = f"@{DOMAIN}" if isinstance(record, PrimaryFacts) else record.mailbox
    key = f"try:{key}" if isinstance(record, RecipientTry) else key
    partition = topics.partition_of(DOMAIN, PARTITIONS)
    await it.deps.log.append("recipients", partition, key.encode(), encode(record), within=PATIENCE_S)


@both
async def test_what_is_written_late(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """By a former owner of the partition, a delivery, the operator before the domain was removed: neither an
    answer, nor a doubt, a brake or a word of his; and what is known now stays the log's last."""
    clock = Clock()
    async with (
        at(known={BOB}) as primary,
        log_of(kind, tmp_path, request, clock) as log,
        house(tmp_path, primary, clock=clock if kind == "sqlite" else None, log=log) as it,
    ):
        await it.add()
        await it.ask(BOB)
        await it.remove()
        await until(lambda: it.known.settings(DOMAIN) is None)
        await it.add(era=1)
        assert it.status(BOB) is None
        now = it.deps.clock.wall()
        await write(it, RecipientStatus(ANN, Status.DELIVERABLE, now, now))
        await write(it, RecipientStatus(EVE, Status.DELIVERABLE, now, 0.0, "operator"))
        await write(it, RecipientTry(BOB, now, "contradicted", now))
        await write(it, PrimaryFacts(DOMAIN, Callouts.CATCH_ALL, now, braked=True))
        for late in (Observed(ANN, "RCPT", "250 ok"), Imported(ANN, "root"), Allowed(EVE, "root")):
            await it.put("callouts", late.mailbox, late)
        for name, status in (
            (BOB, Status.DELIVERABLE),
            (ANN, Status.UNDELIVERABLE),
            (EVE, Status.UNDELIVERABLE),
        ):
            await it.ask(name)
            assert it.status(name) is status
        assert [name for name in asked(primary) if name in (ANN, BOB, EVE)] == [BOB, BOB, ANN, EVE]
        facts = it.facts()
        assert facts is not None
        assert (facts.callouts, facts.braked, facts.era) == (Callouts.OPEN, False, 1)
        await write(it, RecipientStatus(ANN, Status.DELIVERABLE, now, now))
        await write(it, PrimaryFacts(DOMAIN, Callouts.CATCH_ALL, now, braked=True))
        await it.ask(BOB)
        assert it.status(ANN) is Status.UNDELIVERABLE
        facts = it.facts()
        assert facts is not None
        assert facts.callouts is Callouts.OPEN
        await it.put("callouts", ANN, Allowed(ANN, "root", era=1))
        await until(lambda: it.status(ANN) is Status.DELIVERABLE)
        if kind == "sqlite":  # whose clock is ours
            kim = RecipientStatus("kim@office.example", Status.DELIVERABLE, now, now)
            await write(it, kim)
            assert await newest(log, kim.mailbox) is not None
            await it.advance(3601)

            async def forgotten() -> bool:
                return await newest(log, kim.mailbox) is None

            await until(forgotten)
            assert it.status(BOB) is Status.DELIVERABLE
