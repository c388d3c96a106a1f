"""An outage as owners hear of it: by mail, by a post to a server of theirs, and where there is no contact."""

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
    plain.example           MX 10 mail.office.example
                            MX 20 mx1.backup.example
    mail.office.example     A 127.0.0.2
    sender.example          TXT "v=spf1 -all"
    elsewhere.example       MX 10 mail.elsewhere.example
    isp.example             MX 10 mail.elsewhere.example
    mail.elsewhere.example  A 127.0.0.4
    hook.example            A 127.0.0.1
"""
ANN, BOB, EVA = "ann@office.example", "bob@shop.example", "eva@plain.example"
OWNER = "owner@elsewhere.example"
OPERATORS, POSTMASTER = "postmaster@isp.example", "postmaster@plain.example"
ALL_THE_TIME = """
import services.control.notices, services.control.webhook
services.control.notices.EVERY_S = services.control.webhook.FIRST_S = 0.2
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
        Primary(address="127.0.0.2", known={ANN, BOB, EVA, POSTMASTER}) as primary,
        Primary(address="127.0.0.4", known={OWNER, OPERATORS}, port=primary.port) as elsewhere,
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
            assert ("backupmx domain show shop.example" in said.out) is (contact == url)
        assert (await running.ask("domain", "add", "plain.example")).code == 0
        (shown,) = (await running.ask("domain", "show", "shop.example", "--json")).rows
        async with Client(running.smtp_port) as client:
            await client.greet()
            for recipient in (ANN, BOB, EVA):
                assert (await client.mail(recipient)).startswith("250")
            await primary.got(3)
            await primary.down()
            for recipient in (ANN, BOB, EVA):
                assert (await client.mail(recipient)).startswith("250")
        hook.status = 503
        for ended in (running.stop, running.kill):
            await ended(control)
            await running.start(control, first=ALL_THE_TIME)
            await running.ready(control)
            await elsewhere.got(2)
            await hook.got(1)
        hook.status = 200
        await running.until(lambda: len(running.events("Notice")) == 3)
        await primary.up()
        await primary.got(7)
        await elsewhere.got(3)
        await running.until(lambda: len(running.events("Notice")) == 6)
        words = ("announce", "mx2.backup.example", "192.0.2.20", "--from", "2999-01-31")
        said = await running.ask(*words)
        assert said.out == "3 contacts are told that mx2.backup.example has 192.0.2.20 from 2999-01-31 on.\n"
        said = await running.ask(*words, "--json")
        assert (said.rows[0]["told"], said.rows[0]["already"]) == (0, 3)
        await primary.got(8)
        await elsewhere.got(4)
        await running.until(lambda: any(b"notice.address" in each.body for each in hook.posts))
    letters = {
        (to, message["Message-ID"]): message
        for each in (*elsewhere.received, *primary.received)
        for to, _ in each.recipients
        if (message := message_from_bytes(each.content))["Auto-Submitted"] == "auto-generated"
        and each.reverse_path == ""
    }
    to = [name for name, _ in letters]
    assert sorted(to) == sorted([OWNER] * 3 + [OPERATORS] + [POSTMASTER] * 2)
    down, back, new = (message for (name, _), message in letters.items() if name == OWNER)
    assert "nicht erreichbar" in " ".join(str(down["Subject"]).split())
    assert str(back["Subject"]) == "office.example: Ihr Mailserver ist wieder da"
    assert b"gewartet haben: 1. Alle sind" in back.get_payload(decode=True)
    assert "192.0.2.20" in str(new["Subject"])
    assert all(verified(each.headers, each.body, shown["settings"]["contact_secret"]) for each in hook.posts)
    posted = {each.headers["webhook-id"]: json.loads(each.body) for each in hook.posts}
    assert [each["type"] for each in posted.values()] == ["notice.down", "notice.back", "notice.address"]
    assert [each["data"]["details"].get("waited") for each in posted.values()] == [None, 1, None]
