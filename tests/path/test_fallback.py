"""Admission `fallback` through all services: the primary is asked, and what it says decides."""

from pathlib import Path

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
office.example      MX 10 mail.office.example
office.example      MX 20 mx1.backup.example
mail.office.example A 127.0.0.2
mx1.backup.example  A 127.0.0.9
"""


async def test_a_first_try_is_taken_only_while_the_primary_is_away(tmp_path: Path) -> None:
    """Away: the mail is taken at once, and handed over later. Back: the next first try is sent to it, and who
    does not exist is refused all the same."""
    known = {"ann@office.example", "bob@office.example"}
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known=known) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, timing__probe_s="0.5") as running,
    ):
        await primary.down()
        assert (await running.ask("domain", "add", "office.example", "--admission", "fallback")).code == 0
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail("ann@office.example")).startswith("250 2.0.0")
            await primary.up()
            await primary.got(1)
            while (await running.ask("domain", "show", "office.example", "--json")).rows[0][
                "primary"
            ] != "up":
                continue  # what deliver saw is published a moment later
            assert (await client.mail("bob@office.example")).startswith("451 4.7.1 First try")
            assert (await client.mail("eve@office.example")).startswith("550 5.1.1")
            assert (await client.mail("ann@office.example", sender="kim@sender.example")).startswith(
                "451 4.7.1"
            )
        assert await running.metric("solo", "backupmx_sent_back_total") == 2
