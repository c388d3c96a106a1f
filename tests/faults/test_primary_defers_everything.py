"""The primary answers 451 to everything: mail waits, nothing bounces, and it is handed over in the end."""

from pathlib import Path

import pytest

from tests.faults.scene import ANN, BOB, scene


async def test_the_primary_defers_everything(tmp_path: Path) -> None:
    """A server in trouble that still talks counts as one that is away: new recipients come on suspicion."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        for stage in ("MAIL", "RCPT"):
            at.office.say(stage, "451 4.3.0 local problem")
        for number in range(6):
            assert (await at.mail(subject=f"during-{number}")).startswith("250 2.0.0")
        assert (await at.mail(BOB, subject="suspicion")).startswith("250 2.0.0")
        await at.health("deferring")
        assert len(await at.queue()) == 7
        assert not at.backup.events("Bounce")
        for stage in ("MAIL", "RCPT"):
            at.office.say(stage, "")
        said = await at.backup.ask("queue", "flush", "office.example")
        assert said.code == 0, said.err
        await at.office.got(8)
        await at.emptied()
        assert len(set(at.subjects())) == len(at.subjects()) == 8
        assert not at.sender.received


@pytest.mark.parametrize("stage", ["MAIL", "RCPT"])
async def test_nobody_needs_to_flush(tmp_path: Path, stage: str) -> None:
    """Five different mails deferred in a row are the primary's trouble, not theirs: the first mail that it
    takes again voids the backoff of them all."""
    async with scene(tmp_path) as at:
        assert (await at.mail(ANN, BOB, subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        at.office.say(stage, "451 4.0.0 not now")
        during = [f"during-{number}" for number in range(6)]
        for subject in during:
            assert (await at.mail(ANN, BOB, subject=subject)).startswith("250 2.0.0")
        await at.health("deferring")
        assert len(await at.queue()) == len(during)
        at.office.say(stage, "")
        assert (await at.mail(subject="after")).startswith("250 2.0.0")
        await at.office.got(2 + len(during))
        await at.emptied()
        assert sorted(at.subjects()) == sorted(["before", *during, "after"])
        assert not at.backup.events("Bounce")
        assert not at.sender.received
