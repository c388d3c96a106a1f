"""The primary is down: senders notice nothing, and all is handed over when it is back."""

from pathlib import Path

from tests.faults.scene import ANN, scene


async def test_the_primary_is_down(tmp_path: Path) -> None:
    """Mail for a known recipient gets its 250 and waits; an unknown one, refused before, is still refused."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        assert (await at.rcpt("nobody@office.example")).startswith("550 5.1.1")
        await at.office.got(1)
        await at.office.down()
        for number in range(5):
            assert (await at.mail(subject=f"during-{number}")).startswith("250 2.0.0")
        await at.health("down")
        assert (await at.rcpt("nobody@office.example")).startswith("550 5.1.1")
        assert (await at.mail("new@office.example", subject="suspicion")).startswith("250 2.0.0")
        assert len(await at.queue()) == 6
        at.office.known = {ANN, "new@office.example"}
        await at.office.up()
        await at.office.got(7)
        await at.emptied()
        assert len(set(at.subjects())) == len(at.subjects()) == 7
        assert not at.sender.received
