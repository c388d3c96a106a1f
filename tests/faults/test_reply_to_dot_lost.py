"""The connection ends after the final dot: the mail is sent again, a duplicate is allowed, loss is not."""

from pathlib import Path

from tests.faults.scene import scene


async def test_the_primary_did_not_take_it(tmp_path: Path) -> None:
    """RFC 5321 section 4.5.3.2.6: without a reply to the final dot the mail is still ours."""
    async with scene(tmp_path) as at:
        at.office.say("DOT", "!drop", times=1)
        assert (await at.mail(subject="dropped")).startswith("250 2.0.0")
        await at.again()
        await at.office.got(1)
        await at.emptied()
        assert at.subjects() == ["dropped"]


async def test_the_primary_took_it_and_said_nothing(tmp_path: Path) -> None:
    """The reply was lost on the way: the primary gets the mail twice, the same octets, and no third time."""
    async with scene(tmp_path) as at:
        at.office.say("DOT", "!accept-drop", times=1)
        assert (await at.mail(subject="twice")).startswith("250 2.0.0")
        await at.office.got(1)
        await at.again()
        await at.office.got(2)
        await at.emptied()
        first, second = at.office.received
        assert first.content == second.content
        assert not at.sender.received
