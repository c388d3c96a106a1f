"""The DNS of the relay domain goes away after it worked: mail waits, the cache answers."""

from pathlib import Path

import pytest

from tests.faults.scene import ANN, ZONE, scene

GONE = {
    "servfail": "office.example !servfail\nmail.office.example !servfail",
    "nxdomain": "sender.example TXT nothing",
    "no server of its own": "office.example MX 10 mx1.backup.example",
}


@pytest.mark.parametrize("text", GONE.values(), ids=GONE)
async def test_dns_goes_away(tmp_path: Path, text: str) -> None:
    """No answer, no such domain, and an MX set without its primary count as an outage: no mail bounces."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.office.down()
        at.zone.set(text)
        assert (await at.mail(subject="during")).startswith("250 2.0.0")
        await at.health("down")
        assert (await at.rcpt(ANN)).startswith("250 2.1.5")
        assert (await at.rcpt(ANN, sender="")).startswith("250 2.1.5")
        assert len(await at.queue()) == 1
        at.zone.set(ZONE)
        await at.office.up()
        await at.office.got(2)
        await at.emptied()
        assert at.subjects() == ["before", "during"]
        assert not at.backup.events("Bounce")
        assert not at.sender.received
