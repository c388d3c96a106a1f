"""The primary greets, answers EHLO and closes: it counts as down, and its mail waits."""

from pathlib import Path

from tests.faults.scene import scene


async def test_it_closes_after_ehlo(tmp_path: Path) -> None:
    """A banner is not "up", and neither is EHLO: that is seen when somebody asks about a recipient."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.quiet()
        at.office.say("EHLO", "!cut 250-mail.office.example\r\n250 PIPELINING\r\n")
        assert (await at.mail(subject="during")).startswith("250 2.0.0")
        await at.health("down")
        seen = len(at.office.visits)
        await at.office.until(lambda: len(at.office.visits) >= seen + 3)  # probes, and none finds it up
        assert [row["queue_name"] for row in await at.queue()] == ["waiting"]
        at.office.say("EHLO", "")
        await at.office.got(2)  # by itself
        await at.delivered(2)
        assert at.subjects() == ["before", "during"]
