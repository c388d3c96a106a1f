"""The daily notice about what was parked for a domain, from the mail that failed to its owner's mailbox."""

from email import message_from_bytes
from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example          MX 10 mail.office.example
                            MX 20 mx1.backup.example
    mail.office.example     A 127.0.0.2
    sender.example          TXT "v=spf1 -all"
    elsewhere.example       MX 10 mail.elsewhere.example
    mail.elsewhere.example  A 127.0.0.4
"""
ANN, OWNER = "ann@office.example", "owner@elsewhere.example"
# It is always morning, and control looks all the time.
MORNING = """
import services.control.news, services.control.notices
services.control.news.HOUR = 0
services.control.notices.EVERY_S = 0.2
"""


@pytest.mark.parametrize("log", ["sqlite", "kafka"])
async def test_the_owner_hears_once(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    """What failed and whose sender may not be told is named to the domain's contact, once a day, whoever asks
    for it how often, over a kill -9 of who asks."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    control = "control" if kafka else "solo"
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={ANN}) as primary,
        Primary(address="127.0.0.4", known={OWNER}, port=primary.port) as elsewhere,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, activation="dns", kafka=kafka) as running,
    ):
        said = await running.ask("domain", "add", "office.example", "--contact", OWNER)
        assert said.code == 0, said.err
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail(ANN)).startswith("250")
            await primary.got(1)
            await primary.down()
            assert (await client.mail(ANN)).startswith("250")
        assert (await running.ask("queue", "bounce", "--domain", "office.example", "--yes")).code == 0
        (parked,) = (await running.ask("vault", "list", "--json")).rows
        for ended in (running.stop, running.kill):
            await ended(control)
            await running.start(control, first=MORNING)
            await running.ready(control)
            await elsewhere.got(1)
        await running.until(lambda: running.events("Notice"))
        notice = elsewhere.received[0]
        assert (notice.reverse_path, [name for name, _ in notice.recipients]) == ("", [OWNER])
        assert parked["queue_id"].encode() in notice.content
        # A copy is of the same notice: it was handed over when its tombstone was not written yet.
        assert len({message_from_bytes(each.content)["Message-ID"] for each in elsewhere.received}) == 1
        assert len({event["id"] for event in running.events("Notice")}) == 1
