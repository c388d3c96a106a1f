"""The primary takes connections and says nothing, at any stage: its mail waits and arrives once."""

from pathlib import Path

import pytest

from tests.faults.scene import scene

STAGES = ("BANNER", "EHLO", "MAIL", "RCPT", "DATA", "DOT")
QUICK = {f"dial__{name}_timeout_s": "0.5" for name in ("banner", "ehlo", "mail", "rcpt", "data", "dot")} | {
    "dial__greeting_s": "0.5"
}


@pytest.mark.parametrize("stage", STAGES)
async def test_silence(tmp_path: Path, stage: str) -> None:
    """RFC 5321 section 4.5.3.2: each wait has its end, and the mail is tried again. After the final dot a
    duplicate is allowed: the primary here had not taken it."""
    async with scene(tmp_path, **QUICK) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.office.until(lambda: not at.office.open_visits)  # no connection is kept any more
        at.office.say(stage, "!silent")
        assert (await at.mail(subject="during")).startswith("250 2.0.0")
        if stage in ("BANNER", "EHLO", "MAIL"):
            await at.health("down")
        else:
            await at.backup.until(lambda: at.backup.events("TransientFailure"))
        at.office.say(stage, "")
        said = await at.backup.ask("queue", "flush", "office.example")
        assert said.code == 0, said.err
        await at.office.got(2)
        await at.emptied()
        assert at.subjects() == ["before", "during"]
        assert not at.backup.events("Bounce")
        assert not at.sender.received


async def test_a_greeting_that_comes_late(tmp_path: Path) -> None:
    """Later than a carrier waits at first: a probe finds that it greets, and it gets the time that it
    needs."""
    async with scene(tmp_path, dial__greeting_s="0.3") as at:
        at.office.slow(0.8, "BANNER")
        assert (await at.mail(subject="slowly")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.emptied()
        assert at.subjects() == ["slowly"]
