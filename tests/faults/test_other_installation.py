"""The log is empty or that of another installation: 451 for every domain and for our own names, never 550."""

from pathlib import Path

from tests.faults.scene import ANN, scene


async def test_the_log_is_not_ours(tmp_path: Path) -> None:
    """Rule 7: nothing at all is put into a log that is not ours; with the right one all goes on."""
    async with scene(tmp_path) as at:
        assert (await at.rcpt(ANN)).startswith("250 2.1.5")
        assert (await at.rcpt("postmaster@mx1.backup.example")).startswith("250 2.1.5")
        assert await at.backup.stop("solo") == 0
        await at.backup.start("solo", installation__id="another-one")
        await at.backup.ready("solo")
        for to in (ANN, "bob@stranger.example", "postmaster@mx1.backup.example", "postmaster"):
            assert (await at.rcpt(to)).startswith("451 4.3."), to
        assert await at.backup.stop("solo") == 0
        assert not at.backup.events("Reception")
        await at.backup.start("solo")
        await at.backup.ready("solo")
        assert (await at.mail(subject="after")).startswith("250 2.0.0")
        await at.office.got(1)
