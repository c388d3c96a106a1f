"""DSNs on their way: of a delay, of a success; written once whatever happens while they are written."""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from libs.mail.event import EventType
from libs.mail.records import Language, Progress, State
from services.deliver.shard import Shard
from tests.deliver.house import ZONE, House, house
from tests.helpers.clock import Clock
from tests.helpers.patience import until
from tests.helpers.primary import CAPABILITIES, Primary
from tests.helpers.zone import Zone

DOMAIN, DAY_S = "office.example", 86_400.0
AWAY = ZONE.replace(
    "mx.office.example   A  127.0.0.1", ""
)  # the senders' server is there, the primary is not


@asynccontextmanager
async def waiting(path: Path, clock: Clock) -> AsyncIterator[tuple[House, Primary, Zone]]:
    """A primary that is away, and the server of the senders."""
    async with (
        Zone(AWAY) as zone,
        Primary() as primary,
        house(path, primary, zone.servers, clock, probe_s=15.0) as home,
    ):
        yield home, primary, zone


async def swept(home: House, shard: Shard) -> None:
    """One round, with clocks that agree."""
    await shard.partition.append("events", b"x", b"{}")
    await shard.upkeep.sweep()


def fields(primary: Primary, number: int = 0) -> tuple[Any, ...]:
    """The groups of fields in the delivery status of a notice that arrived."""
    report = email.message_from_bytes(primary.received[number].content, policy=email.policy.default)
    assert isinstance(report, EmailMessage)
    _, status, _ = report.iter_parts()
    return tuple(status.get_payload())


async def test_a_delay_is_told_after_a_day_and_once(tmp_path: Path) -> None:
    """Not before; not again after that, by no other owner either; the mail itself is not touched by it."""
    clock = Clock()
    async with waiting(tmp_path, clock) as (home, primary, zone), home.sharing() as common:
        async with home.shard(common) as shard:
            id_, silent = await home.queue(envid="envelope 7"), await home.queue(notify=("FAILURE",))
            other = await home.queue(may_notify=False)
            await until(lambda: home.events(EventType.PRIMARY))
            clock.advance(DAY_S - 60)
            await swept(home, shard)
            assert not home.events(EventType.DELAYED)
            clock.advance(700)
            await swept(home, shard)
            (event,) = home.events(EventType.DELAYED)
            assert (event.id, event.recipient) == (id_, "ann@office.example")
            await until(lambda: primary.received)
            clock.advance(DAY_S)
            await swept(home, shard)
        async with home.shard(common) as shard:
            clock.advance(DAY_S)
            await swept(home, shard)
            assert len(home.events(EventType.DELAYED)) == 1
            state = await home.state()
            assert state[id_] == Progress(since=state[id_].since, delay_told=True)  # type: ignore[union-attr]
            zone.set(ZONE)

            async def ended() -> bool:
                clock.advance(3600)  # past what was cached, to the next probe
                state = await home.state()
                return all(state[each] is None for each in (id_, silent, other))

            await until(ended)
        assert len(primary.received) == 4
    of_mail, group = fields(primary)
    assert of_mail["Original-Envelope-Id"] == "envelope 7"
    assert (group["Action"], group["Status"], group["Final-Log-ID"]) == ("delayed", "4.4.1", id_)
    assert group["Will-Retry-Until"]


async def test_a_delay_in_german_with_the_lifetime_of_the_domain(tmp_path: Path) -> None:
    """Language and lifetime are the domain's own."""
    clock = Clock()
    async with waiting(tmp_path, clock) as (home, primary, _):
        await home.domain(DOMAIN, language=Language.DE, lifetime_s=5 * DAY_S)
        async with home.sharing() as common, home.shard(common) as shard:
            await home.queue()
            await until(lambda: home.events(EventType.PRIMARY))
            arrived = clock.wall()
            clock.advance(DAY_S + 700)
            await swept(home, shard)
            await until(lambda: primary.received)
    report = email.message_from_bytes(primary.received[0].content, policy=email.policy.default)
    assert isinstance(report, EmailMessage)
    human, _, _ = report.iter_parts()
    assert "Empfängern noch nicht zugestellt" in human.get_content()
    until_ = email.utils.parsedate_to_datetime(fields(primary)[1]["Will-Retry-Until"])
    assert abs(until_.timestamp() - arrived - 5 * DAY_S) < 60


@pytest.mark.parametrize("hours", [12.0, 24.5])
async def test_no_delay_is_told_of_a_mail_whose_time_is_over(tmp_path: Path, hours: float) -> None:
    """A lifetime below a day, or one that ended while nobody looked: the next notice is that of the end."""
    clock = Clock()
    async with waiting(tmp_path, clock) as (home, _, _):
        await home.domain(DOMAIN, lifetime_s=hours * 3600)
        async with home.sharing() as common, home.shard(common) as shard:
            await home.queue()
            await until(lambda: home.events(EventType.PRIMARY))
            clock.advance(DAY_S + 3600)
            await swept(home, shard)
        assert not home.events(EventType.DELAYED)


async def test_held_mail_is_not_late(tmp_path: Path) -> None:
    """A person looks at it; its sender is told when it was released and waits still."""
    clock = Clock()
    async with (
        waiting(tmp_path, clock) as (home, _, _),
        home.sharing() as common,
        home.shard(common) as shard,
    ):
        id_ = await home.queue(progress=Progress(State.HELD, since=clock.wall()))
        await until(lambda: shard.partition.index.get(id_))
        clock.advance(DAY_S + 700)
        await swept(home, shard)
        assert not home.events(EventType.DELAYED)


@pytest.mark.parametrize("dsn", [True, False])
async def test_a_success_is_told_where_the_primary_does_not(tmp_path: Path, dsn: bool) -> None:
    """RFC 3461 section 5.2: handed on to a primary that offers DSN, told by us where it does not. Who did not
    ask hears nothing."""
    offered = CAPABILITIES if dsn else tuple(each for each in CAPABILITIES if each != "DSN")
    async with (
        Zone(ZONE) as zone,
        Primary(capabilities=offered) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        async with home.delivering():
            asked = await home.queue(
                "ann@office.example", "bob@office.example", notify=("SUCCESS", "FAILURE")
            )
            others = [await home.queue(), await home.queue(notify=("SUCCESS",), may_notify=False)]
            await home.ended([asked, *others])
            if not dsn:
                await until(lambda: len(primary.received) == 4)
        notices = [mail for mail in primary.received if mail.reverse_path == ""]
        assert len(notices) == (0 if dsn else 1)
        assert primary.violations == []
        if dsn:
            handed_on = next(mail.recipients for mail in primary.received if len(mail.recipients) == 2)
            assert [given["NOTIFY"] for _, given in handed_on] == ["SUCCESS,FAILURE"] * 2
            return
        number = primary.received.index(notices[0])
        _, ann, bob = fields(primary, number)
        assert (ann["Action"], ann["Status"], ann["Remote-MTA"]) == (
            "relayed",
            "2.0.0",
            "dns; mx.office.example",
        )
        assert str(bob["Final-Recipient"]) == "rfc822; bob@office.example"
        assert [event.recipient for event in home.events(EventType.RELAYED)] == [
            "ann@office.example",
            "bob@office.example",
        ]


async def test_interrupted_while_a_success_is_told(tmp_path: Path) -> None:
    """A crash between the primary's 250 and the notice: the next owner writes it, and attempts nothing."""
    offered = tuple(each for each in CAPABILITIES if each != "DSN")
    async with (
        Zone(ZONE) as zone,
        Primary(capabilities=offered) as primary,
        house(tmp_path, primary, zone.servers) as home,
    ):
        async with home.sharing() as common:
            async with home.shard(common) as shard:
                never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                shard.settlement.notices.write = lambda *_: never  # type: ignore[method-assign, assignment, return-value]
                id_ = await home.queue(notify=("SUCCESS",))
                await until(lambda: primary.received)

                async def noted() -> bool:
                    progress = (await home.state())[id_]
                    return progress is not None and progress.relayed == (0,) and bool(progress.dsn_id)

                await until(noted)
                never.cancel()
            async with home.shard(common):
                await home.ended([id_])
                await until(lambda: len(primary.received) == 2)
        assert [mail.reverse_path for mail in primary.received] == ["eve@sender.example", ""]
        assert fields(primary, 1)[1]["Action"] == "relayed"
