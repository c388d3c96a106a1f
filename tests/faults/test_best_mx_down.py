"""The primary's best MX is down and a worse one, which is no primary of recipients, still answers."""

from pathlib import Path

import pytest

from tests.faults.scene import ANN, ZONE, scene
from tests.helpers.primary import Primary

RELAY = """
    office.example       MX 15 relay.example
    relay.example        A 127.0.0.3
"""
NOBODY, NEW = "nobody@office.example", "new@office.example"


@pytest.mark.parametrize("log", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))])
async def test_a_worse_mx_serves_and_teaches_nothing(
    tmp_path: Path, log: str, request: pytest.FixtureRequest
) -> None:
    """It is asked, and takes the mail, while the best one is down: nobody is known or refused for longer by
    what it says, neither in callouts nor in deliveries."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with (
        scene(tmp_path, kafka=kafka) as at,
        Primary(known={ANN, NEW}, address="127.0.0.3", port=at.office.port, name="relay.example") as relay,
    ):
        at.zone.set(ZONE + RELAY)
        assert (await at.rcpt(ANN)).startswith("250 2.1.5")
        await at.backup.until(lambda: at.backup.events("Recipient", recipient=ANN))
        await at.office.down()
        for _ in range(2):
            assert (await at.rcpt(NOBODY)).startswith("550 5.1.1")
            assert (await at.rcpt(NEW)).startswith("250 2.1.5")
        assert (await at.mail(NEW)).startswith("250 2.0.0")
        await relay.got(1)
        relay.known = {NEW}
        assert (await at.mail(ANN)).startswith("250 2.0.0")  # known, whatever the relay says of it
        await at.backup.until(lambda: at.backup.events("Bounce") or at.backup.events("TransientFailure"))
        assert (await at.rcpt(ANN)).startswith("250 2.1.5")
        changed = {event["recipient"] for event in at.backup.events("Recipient")}
        assert changed == {ANN}
        assert not relay.violations
