"""The end of a domain for which mail waits, by the real command while the services run."""

from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

NAMES = ("drained.example", "bounced.example", "erased.example", "kept.example")
ZONE = """
    drained.example      MX 10 mail.office.example
                         MX 20 mx1.backup.example
    bounced.example      MX 10 mail.office.example
                         MX 20 mx1.backup.example
    erased.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    kept.example         MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
    sender.example       MX 10 mail.sender.example
                         TXT "v=spf1 ip4:127.0.0.1 -all"
    mail.sender.example  A 127.0.0.4
"""
NOT_OURS = "451 4.3.5 Domain not ready here, try again later"


async def states(running: Running) -> dict[str, str]:
    rows = (await running.ask("domain", "list", "--json")).rows
    return {row["domain"]: row["state"] for row in rows}


@pytest.mark.parametrize("log", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))])
async def test_the_end_of_a_domain(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    """Refused while mail waits; drained, bounced or erased it takes no more and goes when none waits."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={f"ann@{name}" for name in NAMES}) as primary,
        Primary(address="127.0.0.4", known={"eve@sender.example"}, port=primary.port) as senders,
        Running(
            tmp_path, dns=zone.servers, dial_port=primary.port, kafka=kafka, timing__leave_s="0.5"
        ) as running,
        Client(running.smtp_port) as client,
    ):
        await client.greet()
        for name in NAMES:
            assert (await running.ask("domain", "add", name)).code == 0
            assert (await client.mail(f"ann@{name}")).startswith("250")
        await primary.got(len(NAMES))
        await primary.down()
        for name in NAMES:
            assert (await client.mail(f"ann@{name}")).startswith("250")

        said = await running.ask("domain", "remove", "kept.example")
        assert said.code == 1
        assert "1 mail waits for its primary; say --drain, --bounce or --erase" in said.err
        said = await running.ask("domain", "remove", "kept.example", "--drain", "--bounce")
        assert said.code == 2
        said = await running.ask("domain", "erase", "kept.example")  # standard input is empty: no answer
        assert (said.code, "nothing is done" in said.err) == (1, True)

        said = await running.ask("domain", "remove", "drained.example", "--drain")
        assert "drained.example is leaving" in said.out, said.err
        said = await running.ask("domain", "remove", "bounced.example", "--bounce", "--yes")
        assert "1 mail is bounced" in said.out, said.err
        said = await running.ask("domain", "erase", "erased.example", "--yes", "--json")
        (row,) = said.rows
        assert (row["deleted"], row["forgotten"], row["waiting"]) == (1, 1, 0)
        await senders.got(1)
        assert b"bounced.example" in senders.received[0].content

        left = {"drained.example": "leaving", "kept.example": "active"}
        while await states(running) != left:
            pass
        for name in NAMES[:3]:
            assert (await client.mail(f"ann@{name}")).startswith(NOT_OURS)
        said = await running.ask("domain", "add", "drained.example")
        assert (said.code, "is leaving still" in said.err) == (1, True)

        await primary.up()
        await primary.got(len(NAMES) + 2)  # that of the drained one and that of the one that stays
        while await states(running) != {"kept.example": "active"}:
            pass
        assert len(senders.received) == 1

        await running.until(lambda: len(running.events("Delivery", domain="kept.example")) == 2)
        while not (rows := (await running.ask("domain", "timeline", "kept.example", "--json")).rows)[0][
            "last"
        ]:
            pass
        (outage,) = rows
        assert (outage["states"], outage["waited"], outage["handed_over"]) == (["down"], 1, 1)
        assert outage["since"] < outage["until"]
