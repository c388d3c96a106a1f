"""An outage as owners hear of it: down and back, one by mail and one by a post to his server."""

import json
from email import message_from_bytes
from pathlib import Path

import pytest
import trustme

from tests.control.test_hooks import verified
from tests.helpers.client import Client
from tests.helpers.hook_server import HookServer
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone
from tests.smtp.test_sts import context

ZONE = """
    office.example          MX 10 mail.office.example
                            MX 20 mx1.backup.example
    shop.example            MX 10 mail.office.example
                            MX 20 mx1.backup.example
    mail.office.example     A 127.0.0.2
    sender.example          TXT "v=spf1 -all"
    elsewhere.example       MX 10 mail.elsewhere.example
    mail.elsewhere.example  A 127.0.0.4
    hook.example            A 127.0.0.1
"""
ANN, BOB, OWNER = "ann@office.example", "bob@shop.example", "owner@elsewhere.example"
ALL_THE_TIME = """
import services.control.notices
services.control.notices.EVERY_S = 0.2
"""


@pytest.mark.parametrize("log", ["sqlite", "kafka"])
async def test_down_and_back(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    """Each hears once that his server is away and once that it is back, with what waited, over a kill -9 of
    who decides it; what the server of a post did not take comes again."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    control, authority = "control" if kafka else "solo", trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={ANN, BOB}) as primary,
        Primary(address="127.0.0.4", known={OWNER}, port=primary.port) as elsewhere,
        HookServer(context(authority, "hook.example")) as hook,
        Running(
            tmp_path,
            dns=zone.servers,
            dial_port=primary.port,
            kafka=kafka,
            dial__authorities=str(tmp_path / "authorities.pem"),
            notices__down_after_s="1.0",
            notices__back_after_s="1.0",
        ) as running,
    ):
        url = f"https://hook.example:{hook.port}/notices"
        for name, contact in (("office.example", OWNER), ("shop.example", url)):
            said = await running.ask("domain", "add", name, "--contact", contact, "--language", "de")
            assert said.code == 0, said.err
        (shown,) = (await running.ask("domain", "show", "shop.example", "--json")).rows
        async with Client(running.smtp_port) as client:
            await client.greet()
            for recipient in (ANN, BOB):
                assert (await client.mail(recipient)).startswith("250")
            await primary.got(2)
            await primary.down()
            for recipient in (ANN, BOB):
                assert (await client.mail(recipient)).startswith("250")
        hook.status = 503
        for ended in (running.stop, running.kill):
            await ended(control)
            await running.start(control, first=ALL_THE_TIME)
            await running.ready(control)
            await elsewhere.got(1)
            await hook.got(1)
        hook.status = 200
        await running.until(lambda: len(running.events("Notice")) == 2)
        await primary.up()
        await primary.got(4)
        await elsewhere.got(2)
        await running.until(lambda: len(running.events("Notice")) == 4)
    down, back = (message_from_bytes(each.content) for each in elsewhere.received)
    assert "nicht erreichbar" in " ".join(str(down["Subject"]).split())
    assert str(back["Subject"]) == "office.example: Ihr Mailserver ist wieder da"
    assert b"gewartet haben: 1. Alle sind" in back.get_payload(decode=True)
    assert all(each.reverse_path == "" for each in elsewhere.received)
    assert all(each["Auto-Submitted"] == "auto-generated" for each in (down, back))
    assert all(verified(each.headers, each.body, shown["settings"]["contact_secret"]) for each in hook.posts)
    said_there = [json.loads(each.body) for each in hook.posts]
    assert [each["type"] for each in said_there] == ["notice.down"] * (len(said_there) - 1) + ["notice.back"]
    assert len({each.headers["webhook-id"] for each in hook.posts}) == 2
    assert said_there[-1]["data"]["details"]["waited"] == 1
