"""`domain doctor` by the real command, while services run: over both logs."""

from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
    mx1.backup.example   A 192.0.2.1
    spf-test.mx1.backup.example TXT "v=spf1 -all"
    sender.example       TXT "v=spf1 ip4:127.0.0.1 -all"
"""
BOTH = ZONE.replace(
    "MX 20 mx1.backup.example", "MX 20 mx1.backup.example\n                         MX 20 mx2.backup.example"
)
ANN = "ann@office.example"


@pytest.mark.parametrize("log", ["sqlite", "kafka"])
async def test_a_domain_is_mended_step_by_step(
    tmp_path: Path, log: str, request: pytest.FixtureRequest
) -> None:
    """What is said first, what is left after each remedy, exit code 1 as long as something is wrong."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()

    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={ANN, "postmaster@office.example"}) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, activation="dns", kafka=kafka) as running,
    ):

        async def kinds() -> tuple[int, list[str]]:
            said = await running.ask("domain", "doctor", "Office.Example", "--json")
            return said.code, [each["kind"] for each in said.rows[0]["findings"]]

        assert await kinds() == (1, ["not-registered", "host-missing", "no-starttls"])
        said = await running.ask("domain", "add", "office.example", "--look")
        assert (
            "\n\noffice.example\n  ! DNS names your server first and us behind it\n      Add to DNS: "
            in said.out
        )
        assert (
            "\n  ! We know your recipients\n      To be ready at once: backupmx domain recipients" in said.out
        )
        assert await kinds() == (0, ["host-missing", "no-starttls", "nobody-known"])
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail(ANN)).startswith("250")
        zone.set(BOTH)
        await running.until(lambda: primary.received)
        code, found = await kinds()
        while "host-missing" in found:  # the time to live of the record
            code, found = await kinds()
        assert (code, found) == (0, ["no-starttls"])

        primary.say("RCPT", "450 4.2.0 Greylisted")
        said = await running.ask("domain", "doctor", "office.example", "--language", "de")
        assert said.code == 1
        assert "  + Wir kennen Ihre Empfänger\n" in said.out
        assert "  X Er sagt, welche Empfänger es gibt\n" in said.out
        assert "wendet Greylisting auf uns an: 450 4.2.0 Greylisted" in said.out
        said = await running.ask("domain", "doctor", "office.example", "--for-owner", "--language", "de")
        assert said.code == 1
        assert said.out.startswith("Wir sind der Backup-Mailserver von office.example und haben")
        assert "\n1. FALSCH: 127.0.0.2 wendet Greylisting auf uns an: " in said.out
        await primary.down()
        assert await kinds() == (1, ["refused"])


async def test_domains_are_examined_by_themselves(tmp_path: Path) -> None:
    """The list counts what was found, an event says what came and went, metrics count; `--last` tells it
    without another look; nothing of a suspended domain or one that is gone."""
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={ANN, "postmaster@office.example"}) as primary,
        Running(
            tmp_path, dns=zone.servers, dial_port=primary.port, activation="dns", timing__examine_s="0.2"
        ) as running,
    ):
        await running.ask("domain", "add", "office.example")

        async def row() -> dict[str, float]:
            (said,) = (await running.ask("domain", "list", "--json")).rows
            return said

        while not (first := await row())["examined"]:
            pass
        assert (first["wrong"], first["warnings"]) == (0, 3)
        primary.say("RCPT", "450 4.2.0 Greylisted")
        await running.until(lambda: running.events("Finding"))
        (came,) = running.events("Finding")
        assert came["domain"] == "office.example"
        assert came["text"] == "came wrong greylisted 127.0.0.2: 450 4.2.0 Greylisted"
        said = await running.ask("domain", "list")
        assert "1 wrong, 3 warnings" in " ".join(said.out.split())
        page = await running.page("solo", "metrics")
        assert page is not None
        assert 'backupmx_findings{domain="office.example",level="wrong"} 1.0' in page.text
        assert 'backupmx_domains_with_finding{kind="greylisted",level="wrong"} 1.0' in page.text

        await running.ask("suspend", "office.example")
        kept = await row()
        while (now := await row())["examined"] != kept["examined"]:
            kept = now
        await primary.down()
        said = await running.ask("domain", "doctor", "office.example", "--last", "--language", "de")
        assert said.code == 1
        assert said.out.startswith("as of 20")
        assert "wendet Greylisting auf uns an" in said.out
        assert (await running.ask("domain", "remove", "office.example")).code == 0

        async def counted() -> bool:
            page = await running.page("solo", "metrics")
            return page is None or 'findings{domain="office.example"' in page.text

        while await counted():
            pass
        said = await running.ask("domain", "doctor", "office.example", "--last")
        assert said.code == 1
        assert "has not been examined since" in said.err


async def test_wrong_use(tmp_path: Path) -> None:
    running = Running(tmp_path, dns=[("127.0.0.1", 53)], dial_port=25)
    try:
        said = await running.ask("domain", "doctor", "a b")
        assert said == (2, "", "backupmx: 'a b' is no domain name\n")
        said = await running.ask("domain", "doctor", "office.example", "--language", "fr")
        assert said == (2, "", "backupmx: language must be en or de, not 'fr'\n")
    finally:
        await running.close()
