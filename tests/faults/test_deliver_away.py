"""deliver is away: mail is accepted and waits in the log; the next deliver hands all of it over."""

from pathlib import Path

from tests.faults.scene import scene


async def test_deliver_is_away(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """Nothing is lost, nothing expires untried, and each mail comes once."""
    async with scene(tmp_path, kafka=broker) as at:
        assert await at.backup.stop("deliver") == 0
        subjects = [f"waiting-{number}" for number in range(5)]
        for subject in subjects:
            assert (await at.mail(subject=subject)).startswith("250 2.0.0")
        assert not at.office.received
        await at.backup.start("deliver")
        await at.backup.ready("deliver")
        await at.office.got(5)
        await at.emptied()
        assert sorted(at.subjects()) == subjects
        assert not at.backup.events("Expiration")
        for name in ("ingest", "verify", "deliver", "control"):
            assert await at.backup.stop(name) == 0
