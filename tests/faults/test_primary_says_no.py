"""The primary answers 4yz at each stage, or to some recipients of one mail: each hears the end of it."""

from pathlib import Path

import pytest

from tests.faults.scene import ANN, BOB, scene

SAID = {
    "BANNER": "421 4.3.2 too busy",
    "EHLO": "450 4.3.2 not now",
    "MAIL": "451 4.3.0 local error",
    "RCPT": "450 4.2.0 greylisted, come again",
    "DATA": "451 4.3.0 local error",
    "DOT": "451 4.7.1 content not scanned yet",
}


@pytest.mark.long
async def test_not_now_at_each_stage(tmp_path: Path) -> None:
    """RFC 5321 section 4.2.1: all of it is temporary, and the mail arrives once."""
    async with scene(tmp_path) as at:
        for number, (stage, reply) in enumerate(SAID.items(), 1):
            at.office.say(stage, reply, times=1)
            assert (await at.mail(subject=stage)).startswith("250 2.0.0")
            await at.delivered(number)
            await at.quiet()
        assert at.subjects() == list(SAID)


async def test_each_recipient_its_own(tmp_path: Path) -> None:
    """RFC 5321 section 3.3: one is taken, one is to come again, and each has the mail once."""
    async with scene(tmp_path) as at:
        assert (await at.mail(ANN, BOB, subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        at.office.say("RCPT", "450 4.2.1 mailbox busy", to=BOB, times=1)
        assert (await at.mail(ANN, BOB, subject="during")).startswith("250 2.0.0")
        await at.delivered(3)
        names = [[name for name, _ in mail.recipients] for mail in at.office.received]
        assert names == [[ANN, BOB], [ANN], [BOB]]


async def test_data_fails_for_all_of_them(tmp_path: Path) -> None:
    """One was refused for now at RCPT, the other lost with DATA: both are tried again."""
    async with scene(tmp_path) as at:
        assert (await at.mail(ANN, BOB, subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        at.office.say("RCPT", "450 4.2.1 mailbox busy", to=BOB, times=1)
        at.office.say("DATA", "451 4.3.0 local error", times=1)
        assert (await at.mail(ANN, BOB, subject="during")).startswith("250 2.0.0")
        await at.delivered(2)
        assert [[name for name, _ in mail.recipients] for mail in at.office.received] == [[ANN, BOB]] * 2
