"""The primary answers 451 to everything: mail waits, nothing bounces, and it is handed over in the end."""

from pathlib import Path

from tests.faults.scene import scene


async def test_the_primary_defers_everything(tmp_path: Path) -> None:
    """A server in trouble that still talks counts as one that is away: new recipients come on suspicion."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1, within=30)
        for stage in ("MAIL", "RCPT"):
            at.office.say(stage, "451 4.3.0 local problem")
        for number in range(6):
            assert (await at.mail(subject=f"during-{number}")).startswith("250 2.0.0")
        assert (await at.mail("bob@office.example", subject="suspicion")).startswith("250 2.0.0")
        await at.backup.until(lambda: at.backup.events("Deferral") or at.backup.events("Primary"))
        assert len(await at.queue()) == 7
        assert not at.backup.events("Bounce")
        for stage in ("MAIL", "RCPT"):
            at.office.say(stage, "")
        said = await at.backup.ask("queue", "flush", "office.example")
        assert said.code == 0, said.err
        await at.office.got(8, within=30)
        await at.emptied()
        assert len(set(at.subjects())) == len(at.subjects()) == 8
        assert not at.sender.received
