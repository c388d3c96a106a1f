"""The primary answers slowly, or drop by drop for ever: mail gets there, or is tried again."""

from pathlib import Path

import pytest

from tests.faults.scene import scene

QUICK = {f"dial__{name}_timeout_s": "1.0" for name in ("mail", "rcpt", "data", "dot")}


async def test_slow_and_sure(tmp_path: Path) -> None:
    """A pause before each reply: each is waited for, the mail arrives once."""
    async with scene(tmp_path) as at:
        at.office.slow(0.2)
        assert (await at.mail(subject="slowly")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.emptied()
        assert at.subjects() == ["slowly"]
        assert not at.backup.events("TransientFailure")


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_a_reply_without_end(tmp_path: Path, stage: str) -> None:
    """Line after line of one reply: it must end within its time, as a silent one must begin."""
    async with scene(tmp_path, **QUICK) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        at.office.say(stage, "!drip", times=1)
        assert (await at.mail(subject="during")).startswith("250 2.0.0")
        await at.delivered(2)
        assert at.subjects() == ["before", "during"]
