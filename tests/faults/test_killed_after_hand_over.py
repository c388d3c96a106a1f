"""kill -9 after the primary's 250 and before the tombstone: at worst one duplicate, never a loss."""

from pathlib import Path

from tests.faults.scene import scene


async def test_killed_between_250_and_tombstone(tmp_path: Path) -> None:
    """The primary has it, our record of that may not be written yet: the same octets may come once more, and
    no third time."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="killed")).startswith("250 2.0.0")
        await at.office.got(1, within=30)
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
