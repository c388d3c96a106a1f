"""The connection to the primary ends at each command, and at each octet of the reply to the final dot: a
duplicate is allowed there, a loss nowhere."""

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.scene import Scene, scene
from tests.helpers.primary import CAPABILITIES

STAGES = ("BANNER", "EHLO", "MAIL", "RCPT", "DATA", "DOT")
NO_PIPELINING = tuple(line for line in CAPABILITIES if line != "PIPELINING")
YES = "250 2.0.0 accepted\r\n"


@pytest.mark.long
@pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING], ids=["pipelining", "one by one"])
async def test_at_each_command(tmp_path: Path, capabilities: tuple[str, ...]) -> None:
    """Whatever was answered until then: the mail was not taken, and is sent once more."""
    async with scene(tmp_path) as at:
        await at.quiet()
        at.office.capabilities = capabilities
        for number, stage in enumerate(STAGES, 1):
            at.office.say(stage, "!drop", times=1)
            assert (await at.mail(subject=stage)).startswith("250 2.0.0")
            await at.delivered(number)
            await at.quiet()
        assert at.subjects() == list(STAGES)


async def cut_short(at: Scene, mark: str, lengths: range) -> Counter[str]:
    """A mail to a recipient of its own for each number of octets after which the reply to its dot ends; how
    often each was received."""
    recipients = {f"r{octets}@office.example": octets for octets in lengths}
    assert at.office.known is not None
    at.office.known |= set(recipients)
    for recipient, octets in recipients.items():
        at.office.say("DOT", f"{mark} {YES[:octets]}", to=recipient, times=1)
        assert (await at.mail(recipient)).startswith("250 2.0.0")
    await at.delivered(len(recipients))
    return Counter(mail.recipients[0][0] for mail in at.office.received)


async def test_after_each_octet_of_the_last_reply(tmp_path: Path) -> None:
    """RFC 5321 section 4.5.3.2.6: it had the mail, and only the whole line says so. Twice at most, at any
    cut."""
    async with scene(tmp_path) as at:
        found = await cut_short(at, "!accept-cut", range(len(YES) + 1))
        assert found.pop(f"r{len(YES)}@office.example") == 1
        assert set(found.values()) == {2}
        assert len(found) == len(YES)


@pytest.mark.long
async def test_of_a_server_that_had_not_taken_it(tmp_path: Path) -> None:
    """The same octets: it has each mail once in the end."""
    async with scene(tmp_path) as at:
        found = await cut_short(at, "!cut", range(len(YES)))
        assert set(found.values()) == {1}
        assert len(found) == len(YES)
