"""A primary out of step: what is no answer to a command is never taken for one (RFC 5321 section 4.3.2)."""

import pytest

from libs.smtp.client import Fault, Stage
from tests.helpers.primary import Primary
from tests.smtp.test_client import ANN, CONTENT, NO_PIPELINING, connected, envelope


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("DATA", "250 2.0.0 what"),
        ("DOT", "354 go on"),
        ("DOT", "25"),
        ("DOT", "2"),
        ("DOT", "250-yes\n550 no"),
        ("RCPT", "354 go on"),
        ("MAIL", "354 go on"),
    ],
)
async def test_a_reply_of_the_wrong_kind_is_none(stage: str, reply: str, pipelining: bool) -> None:
    """A yes to another command, half a code, or two codes in one reply: the session is broken, nothing is
    known of the mail."""
    async with Primary() if pipelining else Primary(capabilities=NO_PIPELINING) as primary:
        primary.say(stage, reply, times=1)
        connection = await connected(primary)
        with pytest.raises(Fault) as caught:
            await connection.send(envelope(ANN), CONTENT)
        assert (caught.value.stage, caught.value.reason) == (Stage[stage], "malformed")
        assert caught.value.reply is None
        assert not connection.usable
