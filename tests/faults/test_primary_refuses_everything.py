"""The primary greets with 554: that speaks of the server or of us, never of a mailbox. Nothing bounces."""

from pathlib import Path

from tests.faults.scene import ANN, BOB, scene


async def test_the_primary_refuses_everything(tmp_path: Path) -> None:
    """RFC 5321 section 3.1: 554 instead of 220. Mail waits; who is known is accepted, nobody is told no."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.office.down()  # ends the sessions that are kept
        at.office.say("BANNER", "554 5.7.1 no SMTP service for you")
        await at.office.up()
        assert (await at.mail(subject="during")).startswith("250 2.0.0")
        assert (await at.rcpt(BOB))[:1] in "24"
        await at.health("refusing")
        assert len(await at.queue()) == 1
        at.office.say("BANNER", "")
        said = await at.backup.ask("queue", "flush", "office.example")
        assert said.code == 0, said.err
        await at.office.got(2)
        await at.emptied()
        assert at.subjects() == ["before", "during"]
        assert not at.backup.events("Bounce")
        assert not at.sender.received


async def test_it_is_not_dialled_again_and_again(tmp_path: Path) -> None:
    """A server that was up a moment ago and greets with 554 now is refusing: one attempt in 15 min."""
    async with scene(tmp_path) as at:
        assert (await at.mail(ANN, BOB, subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.office.until(lambda: not at.office.open_visits)  # no session is kept, and it was never down
        dialled = len(at.office.visits)
        at.office.say("BANNER", "554 5.7.1 no SMTP service for you")
        during = [f"during-{number}" for number in range(3)]
        for subject in during:
            assert (await at.mail(ANN, BOB, subject=subject)).startswith("250 2.0.0")
        await at.health("refusing")
        assert len(await at.queue()) == len(during)
        assert len(at.office.visits) == dialled + 1
        at.office.say("BANNER", "")
        said = await at.backup.ask("queue", "flush", "office.example")
        assert said.code == 0, said.err
        await at.office.got(1 + len(during))
        await at.emptied()
        assert sorted(at.subjects()) == ["before", *during]
        assert not at.backup.events("Bounce")
        assert not at.sender.received
