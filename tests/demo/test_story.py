"""The demo must be able to fail: what it checks is what it says."""

from pathlib import Path

import pytest

from demo.story import Story
from tests.helpers.mailing import content
from tests.helpers.primary import Primary
from tests.helpers.primary_session import Received
from tests.helpers.running import Running

FIELDS = b"Received: from a\r\n\tby b; now\r\nAuthentication-Results: mx1.backup.example;\r\n\tspf=pass\r\n"


def received(octets: bytes, fields: bytes = FIELDS) -> Received:
    return Received("eve@sender.example", (), fields + octets, {}, "mx1.backup.example", False)


@pytest.fixture
async def story(tmp_path: Path) -> Story:
    """Two mails were sent; no process is started."""
    running = Running(tmp_path, dns=[("127.0.0.1", 53)], dial_port=25)
    await running.close()
    told = Story(running, Primary(), Primary(), None, 0.0)
    told.sent = {token: content(token) for token in ("one", "two")}
    return told


def test_both_mails_once_with_our_fields_on_top(story: Story) -> None:
    """That is what is called intact, in any order."""
    assert story.intact([received(content("two")), received(content("one"))], ["one", "two"])


@pytest.mark.parametrize(
    "got",
    [
        [received(content("one"))],
        [received(content("one")), received(content("one"))],
        [received(content("one")), received(content("two")), received(content("two"))],
        [received(content("one")), received(content("two")[:-3] + b"\r\n")],
        [received(content("one")), received(content("two").replace(b"..two", b".two"))],
        [received(content("one")), received(content("two"), FIELDS + b"X-Spam: no\r\n")],
        [received(content("one")), received(content("two"), FIELDS + b"\r\n")],
    ],
    ids=["lost", "one twice", "a duplicate", "cut", "a dot less", "a foreign field", "an empty line"],
)
def test_anything_else_is_not(story: Story, got: list[Received]) -> None:
    """Lost, doubled, altered, or with something on top that is not ours."""
    assert not story.intact(got, ["one", "two"])


def test_one_thing_that_is_not_so_ends_the_demo_non_zero(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named where it happens and again at the end."""
    story.check("the sun shines", holds=True)
    assert story.end()
    story.check("it rains", holds=False)
    assert not story.end()
    out = capsys.readouterr().out
    assert "NOT SO: it rains" in out
    assert out.endswith("Not as it should be:\n  it rains\n")
