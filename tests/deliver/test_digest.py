"""The daily notice to a domain's contact: its octets, and that deliver writes it once."""

import email
import email.policy
import os
from email.message import EmailMessage
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from libs.log.contract import Record, Unavailable
from libs.mail.event import EventType
from libs.mail.notice import notice_id
from libs.mail.records import Cause, Language, Notify, Posted, Progress, State
from services.deliver import notices
from services.deliver.digest import Parked, build
from services.deliver.dsn import Written
from tests.deliver.house import ZONE, house
from tests.deliver.test_requests import said
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone

NOW, DAY_S = 1_800_000_000.0, 86_400.0
DOMAIN, CONTACT = "office.example", "owner@sender.example"
ELSEWHERE = ZONE + "elsewhere.example MX 10 mx.sender.example\n"
PARKED = [
    Parked(
        "mail000001", "eve@sender.example", ("ann@office.example",), NOW - DAY_S, NOW + 6 * DAY_S,
        Cause.REFUSED, "550 5.1.1 <ann@office.example>: no such user",
    ),
    Parked(
        "mail000002", "bjørn@sender.example", ("bob@office.example", "eva@office.example"),
        NOW - 30 * DAY_S, NOW + 7 * DAY_S, Cause.EXPIRED, "",
    ),
    Parked("mail000003", "x\r\nBcc: y@z.example", ("ann@office.example",), NOW, NOW, Cause.GIVEN_UP, ""),
]  # fmt: skip


@pytest.mark.parametrize("language", Language)
def test_octets(language: Language) -> None:
    """As in digests/: `GOLDEN=1 pytest tests/deliver/test_digest.py` writes them again. ASCII only, and what
    strangers wrote adds no field and no line."""
    by = Written(notice_id(DOMAIN, "parked", "2027-01-15"), "mx1.backup.example", NOW, "", language=language)
    octets = build(DOMAIN, CONTACT, PARKED, 1234, by)
    golden = Path(__file__).parent / "digests" / f"{language}.eml"
    if os.environ.get("GOLDEN"):
        golden.write_bytes(octets)
    assert octets == golden.read_bytes()
    assert octets.isascii()
    assert max(map(len, octets.split(b"\r\n"))) <= 78
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert (message["Bcc"], message["To"].addresses[0].addr_spec) == (None, CONTACT)
    assert "bjørn@sender.example" in message.get_content()
    assert "\nBcc" not in message.get_content()


async def test_a_notice_is_written_once(tmp_path: Path) -> None:
    """For a day, however often it is asked for, before and after it was delivered; another day's is
    another."""
    async with Zone(ELSEWHERE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain(DOMAIN, contact="owner@elsewhere.example", language=Language.DE)
        parked = Progress(
            State.PARKED, 1, failed=(0,), last_reply="550 5.1.1 nobody", since=home.clock.wall()
        )
        id_ = await home.queue(progress=parked)
        await home.queue(progress=Progress(State.HELD, since=home.clock.wall()))
        async with home.delivering():
            for number in range(3):
                await home.ask(Notify(f"r{number}", DOMAIN, "a test", "parked", "2027-01-15"))
                event = await said(home, f"r{number}")
                assert event.counts["changed"] == (1 if number == 0 else 0)
                await primary.got(1)
            await home.ask(Notify("next", DOMAIN, "a test", "parked", "2027-01-16"))
            await primary.got(2)
            await until(lambda: len(home.events(EventType.DELIVERY)) == 2)
        first, second = primary.received
        assert first.recipients[0][0] == "owner@elsewhere.example"
        assert first.reverse_path == ""
        message = email.message_from_bytes(first.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        assert message["Subject"] == "Nicht zustellbare Mail an office.example: 1"
        assert id_ in message.get_content()
        assert "550 5.1.1 nobody" in message.get_content()
        assert first.content != second.content
        assert (await home.state())[id_] == parked


async def test_a_parked_mail_that_nobody_can_read(tmp_path: Path) -> None:
    """It is counted, and keeps nobody from hearing of the others."""
    async with Zone(ELSEWHERE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain(DOMAIN, contact="owner@elsewhere.example")
        parked = Progress(State.PARKED, failed=(0,), since=home.clock.wall())
        good, bad = await home.queue(progress=parked), await home.queue(progress=parked)
        [record] = [each async for each in home.records("queue", DOMAIN) if each.key == bad.encode()]
        fields = msgspec.msgpack.decode(record.value)
        fields["mail"]["recipients"][0]["basis"] = "of a newer version"
        octets = msgspec.msgpack.encode(fields)
        await home.log.append("queue", record.partition, record.key, octets, within=5, headers=record.headers)
        async with home.delivering():
            await home.ask(Notify("one", DOMAIN, "a test", "parked", "2027-01-15"))
            assert (await said(home, "one")).counts["changed"] == 1
            await primary.got(1)
        text = primary.received[0].content.decode()
        assert good in text
        assert bad not in text
        assert "Mail for office.example that could not be delivered: 2" in text


async def test_a_log_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parked mail that cannot be read now is read a moment later: nobody asks for this notice again."""
    monkeypatch.setattr(notices, "AGAIN_S", 0.01)
    async with Zone(ELSEWHERE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain(DOMAIN, contact="owner@elsewhere.example")
        id_ = await home.queue(progress=Progress(State.PARKED, failed=(0,), since=home.clock.wall()))
        read, away = home.log.read, [Unavailable("away"), Unavailable("away")]

        async def reading(topic: str, partition: int, offset: int, key: bytes) -> Record:
            if key == id_.encode() and away:
                raise away.pop()
            return await read(topic, partition, offset, key)

        monkeypatch.setattr(home.log, "read", reading)
        async with home.delivering():
            await home.ask(Notify("one", DOMAIN, "a test", "parked", "2027-01-15"))
            assert (await said(home, "one")).counts["changed"] == 1
            await primary.got(1)
        assert not away
        assert id_ in primary.received[0].content.decode()


async def test_a_notice_whose_text_is_given(tmp_path: Path) -> None:
    """It goes to whom it is for, once for its key, whatever the day; one that control posts, or that is for
    the events alone, is not for deliver; nor is what became of a post."""
    down = Notify("one", DOMAIN, "a test", "down", "2027-01-15", "1800000000", "owner@elsewhere.example")
    down = replace(down, subject="Down", text="Ihr Server für " + "Mail " * 30 + "\n\nist nicht erreichbar")
    async with Zone(ELSEWHERE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        async with home.delivering():
            await home.ask(replace(down, to=""))
            await home.ask(replace(down, to="https://hook.example/"))
            await home.ask(Posted("zero", DOMAIN, "a test", "down", "1800000000", taken=True))
            for number in range(2):
                await home.ask(replace(down, request_id=f"r{number}", day=f"2027-01-1{number}"))
                assert (await said(home, f"r{number}")).counts["changed"] == (1 if number == 0 else 0)
            await home.ask(replace(down, request_id="next", key="1800009999"))
            await primary.got(2)
        message = email.message_from_bytes(primary.received[0].content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        assert (message["Subject"], message["Auto-Submitted"]) == ("Down", "auto-generated")
        assert message.get_content().split() == down.text.split()
        assert "\r\n\r\nist nicht" in message.get_content()
        assert primary.received[0].reverse_path == ""
        assert [event.text for event in home.events(EventType.NOTICE)] == [
            "down 1800000000",
            "down 1800009999",
        ]


@pytest.mark.parametrize("contact", ["", "owner@elsewhere.example"])
async def test_no_notice(tmp_path: Path, contact: str) -> None:
    """Without a contact, and with nothing parked, there is none, and the answer says so."""
    async with Zone(ELSEWHERE) as zone, Primary() as primary, house(tmp_path, primary, zone.servers) as home:
        await home.domain(DOMAIN, contact=contact)
        progress = Progress(State.HELD if contact else State.PARKED, since=home.clock.wall())
        await home.queue(progress=progress)
        async with home.delivering():
            await home.ask(Notify("one", DOMAIN, "a test", "parked", "2027-01-15"))
            assert (await said(home, "one")).counts == {"changed": 0, "already": 0, "unchanged": 1, "busy": 0}
        assert not primary.received
