"""Admission `fallback` beyond one dialogue: another process, a restart, a log that is away, memory."""

import asyncio
import time
from pathlib import Path

from msgspec.structs import replace

from libs import topics
from libs.log.contract import NotStored, Record
from libs.mail.codec import decode_callout
from libs.mail.knowledge import RecipientStatus, Sight, Status
from libs.mail.records import Admission, Domain, Overrides
from libs.runtime.run import Life
from services.ingest.service import ingest
from services.ingest.sights import MOST, REMEMBERED_S, Memory, hashed, neighbours, salt
from tests.helpers.client import Client
from tests.helpers.clock import Clock
from tests.helpers.patience import PATIENCE_S, until
from tests.ingest.house import House, config, free_port

ANN = "ann@office.example"
OFFICE = Domain("office.example", 1.0, 2.0, overrides=Overrides(admission=Admission.FALLBACK))


async def confirm(house: House) -> None:
    """The primary answers just now."""
    now = house.clock.wall()
    record = RecipientStatus(ANN, Status.DELIVERABLE, now, now)
    await house.put("recipients", "office.example", ANN, record)
    house.answers = {ANN: [(ANN, record)]}


async def rcpt(port: int) -> str:
    async with Client(port) as client:
        await client.greet()
        await client.send(f"MAIL FROM:<eve@sender.example>\r\nRCPT TO:<{ANN}>\r\n".encode())
        await client.reply()
        return await client.reply()


def sent_back(house: House) -> float | None:
    return house.metrics.registry.get_sample_value("backupmx_sent_back_total")


async def test_the_second_try_may_come_to_another_process(tmp_path: Path) -> None:
    """A first sight is on `callouts`, as a hash, and every process reads it: also one that starts later."""
    clock = Clock(time.time())
    async with House(tmp_path, clock=clock) as house:
        await house.install(OFFICE)
        await confirm(house)
        await house.start()
        held, port = free_port()
        life = Life("ingest", clock)
        other = asyncio.create_task(ingest(house.deps._replace(config=config(tmp_path, port)), life))
        try:
            await life.is_ready.wait()
            assert (await rcpt(house.port)).startswith("451 4.7.1 First try")
            records = [r for r in await until_records(house) if r.key.startswith(topics.SIGHT)]
            assert [decode_callout(record.value or b"") for record in records] == [
                Sight("mx1.backup.example")
            ]
            assert b"ann" not in records[0].key
            clock.advance(301)
            await confirm(house)
            assert (await rcpt(port)).startswith("250 2.1.5")
        finally:
            life.must_drain.set()
            await other
            held.close()
        assert sent_back(house) == 1

    async with House(tmp_path, clock=clock) as house:
        await house.start()
        assert (await rcpt(house.port)).startswith("250 2.1.5")


async def until_records(house: House) -> list[Record]:
    """The records of `callouts`, once there is one."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await house.records("callouts")):  # noqa: ASYNC110 the record comes after the reply
            await asyncio.sleep(0.005)
    return found


async def test_a_setting_that_changes_is_seen(tmp_path: Path) -> None:
    """`domain set` while the service runs: `fallback` holds from then on, and `always` again."""
    always = replace(OFFICE, overrides=Overrides())
    async with House(tmp_path) as house:
        await house.install(always)
        await confirm(house)
        await house.start()
        assert (await rcpt(house.port)).startswith("250 ")
        assert not await house.records("callouts")
        for domain, wanted in ((OFFICE, "451 4.7.1"), (always, "250 ")):
            await house.put("domains", "office.example", "office.example", domain)
            async with asyncio.timeout(PATIENCE_S):
                while not (await rcpt(house.port)).startswith(wanted):  # noqa: ASYNC110 any process's table
                    await asyncio.sleep(0.005)


async def test_who_cannot_be_told_of_is_remembered_here(tmp_path: Path) -> None:
    """The log is away at the first try: this process knows him all the same."""
    clock = Clock(time.time())
    async with House(tmp_path, clock=clock) as house:
        await house.install(OFFICE)
        await confirm(house)
        await house.start()
        house.log.fail["callouts"].append(NotStored("away"))
        assert (await rcpt(house.port)).startswith("451 4.7.1 First try")
        await until(lambda: not house.log.fail["callouts"])
        clock.advance(301)
        assert (await rcpt(house.port)).startswith("250 2.1.5")


def test_the_memory_is_bounded() -> None:
    """However many come, at most two generations are held; otherwise a sight lasts for a day and more."""
    memory = Memory()
    memory.saw(b"ann", 10.0, 10.0)
    memory.saw(b"ann", 400.0, 400.0)
    assert memory.at(b"ann") == 10.0
    memory.saw(b"bob", 10.0 + REMEMBERED_S, 10.0 + REMEMBERED_S)
    assert memory.at(b"ann") == 10.0
    memory.saw(b"eve", 10.0 + 2 * REMEMBERED_S, 10.0 + 2 * REMEMBERED_S)
    assert memory.at(b"ann") is None
    assert memory.at(b"bob") is not None
    memory.saw(b"kim", 10.0 + 9 * REMEMBERED_S, 10.0 + 9 * REMEMBERED_S)
    assert memory.at(b"eve") is None
    for number in range(3 * MOST):
        memory.saw(b"%d" % number, 1.0, 11.0 + 9 * REMEMBERED_S)
    assert len(memory) <= 2 * MOST
    assert memory.at(b"%d" % (3 * MOST - 1)) is not None


def test_who_is_one_client() -> None:
    """The /24 of an IPv4 address, the /64 of an IPv6 address; the hash is of this installation."""
    assert neighbours("192.0.2.77") == neighbours("192.0.2.1") != neighbours("192.0.3.1")
    assert neighbours("2001:db8::/64") == "2001:db8::/64"
    ours, theirs = salt("installation-1"), salt("installation-2")
    assert hashed(ours, "192.0.2.1", "", ANN) == hashed(ours, "192.0.2.9", "", ANN)
    assert hashed(ours, "192.0.2.1", "", ANN) != hashed(theirs, "192.0.2.1", "", ANN)
    assert hashed(ours, "192.0.2.1", "a", "b@c") != hashed(ours, "192.0.2.1", "ab", "@c")
