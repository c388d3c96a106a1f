"""The primary greylists us: a recipient that cannot be verified is taken on suspicion, its mail arrives."""

from pathlib import Path

from tests.faults.scene import BOB, scene


async def test_callouts_are_greylisted(tmp_path: Path) -> None:
    """A temporary reply to a callout says nothing about the mailbox: neither 550 now nor 550 from a cache."""
    async with scene(tmp_path) as at:
        at.office.say("RCPT", "451 4.7.1 greylisted, try again later", to=BOB)
        for number in range(2):
            assert (await at.mail(BOB, subject=f"grey-{number}")).startswith("250 2.0.0")
        assert not at.office.received
        assert not at.backup.events("Rejection")
        assert len(await at.queue()) == 2
        at.office.say("RCPT", "", to=BOB)
        said = await at.backup.ask("queue", "flush", "office.example")
        assert said.code == 0, said.err
        await at.office.got(2)
        await at.emptied()
        assert sorted(at.subjects()) == ["grey-0", "grey-1"]
