"""The primary offers STARTTLS and cannot: where nobody asked for TLS its mail goes in clear, on a new
connection."""

from pathlib import Path

import pytest

from tests.faults.scene import scene
from tests.helpers.primary import server_context


@pytest.mark.parametrize("how", ["refused", "noise", "dropped", "silent"])
async def test_starttls_fails(tmp_path: Path, how: str) -> None:
    """RFC 7435: some protection where it can be had, and no outage where it cannot. It arrives once."""
    async with scene(tmp_path, dial__starttls_timeout_s="1.0") as at:
        at.office.capabilities = (*at.office.capabilities, "STARTTLS")
        at.office.tls = None if how == "noise" else server_context("mail.office.example")
        match how:
            case "refused":
                at.office.say("STARTTLS", "454 4.7.0 TLS not available due to temporary reason")
            case "dropped":
                at.office.say("STARTTLS", "!drop")
            case "silent":
                at.office.say("STARTTLS", "!silent")
        assert (await at.mail(subject="in clear")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.emptied()
        assert at.subjects() == ["in clear"]
        assert not at.office.received[0].tls
        assert not any("-> down" in event["text"] for event in at.backup.events("Primary"))
        assert not at.backup.events("Bounce")


async def test_it_has_tls_again(tmp_path: Path) -> None:
    """What failed once is tried again with the next connection."""
    async with scene(tmp_path) as at:
        at.office.capabilities = (*at.office.capabilities, "STARTTLS")
        at.office.tls = server_context("mail.office.example")
        at.office.say("STARTTLS", "454 4.7.0 not now", times=2)  # a callout and a delivery
        assert (await at.mail(subject="in clear")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.quiet()
        assert (await at.mail(subject="encrypted")).startswith("250 2.0.0")
        await at.office.got(2)
        await at.emptied()
        assert [mail.tls for mail in at.office.received] == [False, True]
