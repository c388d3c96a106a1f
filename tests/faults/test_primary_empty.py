"""The primary comes back from an outage without its users: nobody fails while the brake is pulled."""

from pathlib import Path

from tests.faults.scene import ANN, BOB, scene


async def test_it_returns_with_an_empty_user_base(tmp_path: Path) -> None:
    """Rule 9: confirmed recipients that are refused now are its mistake; when they are back all of it
    arrives."""
    async with scene(tmp_path) as at:
        assert (await at.mail(ANN, BOB, subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.office.down()
        for recipient in (ANN, BOB):
            assert (await at.mail(recipient, subject=f"to {recipient}")).startswith("250 2.0.0")
        await at.health("down")
        at.office.known = set()
        await at.office.up()
        await at.backup.until(
            lambda: any("brake pulled" in event["text"] for event in at.backup.events("Primary"))
        )
        assert len(await at.queue()) == 2
        at.office.known = {ANN, BOB}
        await at.delivered(3)
        assert sorted(at.subjects()) == ["before", f"to {ANN}", f"to {BOB}"]
