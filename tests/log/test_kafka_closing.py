"""What is cancelled or closed at any moment leaves no connection and no task behind."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial

import psutil
import pytest

from libs.log.kafka_client import Client
from libs.log.kafka_group import Membership
from libs.log.kafka_line import Line
from libs.log.kafka_wire import Wire
from libs.runtime.clock import SystemClock
from tests.helpers.kafka import fresh, log_on
from tests.helpers.patience import until
from tests.log.contract import Keeper, Ledger


def connected(broker: tuple[str, ...]) -> set[int]:
    """Our ports of the connections to `broker`."""
    port = int(broker[0].rpartition(":")[2])
    all_of = psutil.Process(os.getpid()).net_connections("tcp")
    return {one.laddr.port for one in all_of if one.raddr and one.raddr.port == port}


async def cut_short(work: Callable[[], Awaitable[object]], within: float) -> None:
    """Cancel it after `within` seconds, a moment of chance."""
    task = asyncio.ensure_future(work())
    await asyncio.wait({task}, timeout=within)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def test_a_client_that_is_cancelled_while_it_connects(broker: tuple[str, ...]) -> None:
    """Also while it asks for the brokers over its first connection."""
    before = connected(broker)
    for step in range(30):
        wire = Wire(broker, ("no-such-topic",), "cut-short")
        await cut_short(wire.client, step / 500)
        await wire.close()
    await until(lambda: connected(broker) <= before)


async def test_a_producer_that_is_cancelled_while_it_connects(broker: tuple[str, ...]) -> None:
    before = connected(broker)
    wire = Wire(broker, (), "cut-short")
    for step in range(30):
        line = Line(broker, "cut-short", 2000, wire)
        await cut_short(partial(line.start, ()), step / 500)
        await line.discard()
    await wire.close()
    await until(lambda: connected(broker) <= before)


async def test_a_request_under_way_opens_nothing_after_the_close(broker: tuple[str, ...]) -> None:
    """Ready to be sent, it finds the client closed."""
    before = connected(broker)
    for step in range(20):
        client = Client(broker, "cut-short", 2000)
        await client.bootstrap()
        asking = asyncio.create_task(client.fetch_all_metadata())
        await asyncio.wait({asking}, timeout=step / 2000)
        await client.close()
        await asyncio.wait({asking})
        asking.exception()
    await until(lambda: connected(broker) <= before)


@pytest.mark.long
async def test_a_member_that_leaves_at_any_moment(broker: tuple[str, ...]) -> None:
    """While it connects, joins, is given its numbers, or starts again from nothing."""
    prefix, ledger = fresh(), Ledger()
    async with log_on(broker, prefix=prefix) as log:
        async with log.own(ledger.group, Keeper("warm", ledger)):
            await until(lambda: ledger.covered(2))
        tasks, before = asyncio.all_tasks(), connected(broker)
        for step in range(20):
            member = Membership(
                broker, ledger.group, prefix + ledger.group, f"{prefix}queue", Keeper("cut", ledger),
                SystemClock(),
            )  # fmt: skip
            await cut_short(member.run, step / 20)
            if step % 2:
                await cut_short(partial(member._disconnect, leave=False), step / 100)
            await member.leave()
            await until(lambda: asyncio.all_tasks() <= tasks)
        await until(lambda: connected(broker) <= before)
