"""kill -9 after the primary's 250 and before the tombstone: at worst one duplicate, never a loss."""

from collections import Counter
from pathlib import Path

from tests.faults.scene import scene


async def test_killed_between_250_and_tombstone(tmp_path: Path) -> None:
    """The primary has it, our record of that may not be written yet: the same octets may come once more, and
    no third time."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="killed")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.backup.kill("solo")
        await at.backup.start("solo")
        await at.backup.ready("solo")
        await at.emptied()
        assert set(at.subjects()) == {"killed"}
        assert len(at.office.received) <= 2
        assert len({mail.content for mail in at.office.received}) == 1
        copies = len(at.office.received)
        await at.backup.kill("solo")
        await at.backup.start("solo")
        await at.backup.ready("solo")
        assert not await at.queue()  # the tombstone is final
        assert len(at.office.received) == copies


async def test_killed_while_a_queue_is_handed_over(tmp_path: Path) -> None:
    """Killed twice in the middle of a queue: nothing is lost, a kill costs a mail one duplicate at most."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.office.down()
        subjects = ["before", *(f"during-{number}" for number in range(40))]
        for subject in subjects[1:]:
            assert (await at.mail(subject=subject)).startswith("250 2.0.0")
        await at.office.up()
        kills = (5, 15)
        for handed_over in kills:
            await at.office.got(handed_over)
            await at.backup.kill("solo")
            await at.backup.start("solo")
            await at.backup.ready("solo")
        await at.backup.until(lambda: set(at.subjects()) == set(subjects))
        await at.emptied()
        assert max(Counter(at.subjects()).values()) <= 1 + len(kills)
        assert not at.backup.events("Bounce")
        assert await at.backup.stop("solo") == 0
