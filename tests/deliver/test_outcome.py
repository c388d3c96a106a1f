"""What a next hop says without a mail: connections that were not made, probes, transactions broken off."""

import pytest

from libs.mail.reply import Foreign
from libs.mail.speaks import Stage
from services.deliver.destination import Closed, Opened, Overloaded, Refused, Seen
from services.deliver.outcome import Lost, Unable, broken_off, of_hosts, probed, unreached


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (None, Closed("BANNER: timeout")),
        (Foreign(421, "4.3.2", "later"), Overloaded("BANNER: 421 4.3.2 later")),
        (Foreign(554, "5.7.1", "go away"), Refused(None, "BANNER: 554 5.7.1 go away")),
    ],
)
def test_unreached(reply: Foreign | None, wanted: Seen) -> None:
    """Silence is an outage, 4yz an overload, 5yz a refusal of us before any mail was named."""
    assert unreached(Stage.BANNER, reply, "timeout") == wanted


def test_the_host_that_answered_says_more() -> None:
    """One silent host among several does not hide what another one said, whichever came first."""
    closed, overloaded, refused = Closed("x"), Overloaded("y"), Refused(None, "z")
    assert of_hosts(closed, overloaded) == of_hosts(overloaded, closed) == overloaded
    assert of_hosts(overloaded, refused) == refused
    assert of_hosts(closed, Closed("later")) == Closed("later")


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (Foreign(250, "2.1.5", "ok"), Opened),
        (Foreign(550, "5.1.1", "no such user"), Opened),
        (Foreign(450, "4.2.0", "greylisted"), Opened),
        (Foreign(421, "4.3.2", "busy"), Overloaded),
        (Foreign(550, "5.7.1", "blocked using a list"), Refused),
    ],
)
def test_probed(reply: Foreign, wanted: type[Seen]) -> None:
    """Any answer to RCPT means up, but 421, 4.3.x and a block."""
    assert isinstance(probed(Stage.RCPT, reply), wanted)


def test_broken_off() -> None:
    """What is not offered is known and was not said; anything else is what was heard, or a loss."""
    stage, got = broken_off(Stage.CONTENT, None, "smtputf8")
    assert (stage, isinstance(got, Unable) and got.reply.enhanced) == (Stage.MAIL, "5.6.7")
    stage, got = broken_off(Stage.CONTENT, None, "syntax")
    assert (stage, isinstance(got, Foreign) and got.enhanced) == (Stage.MAIL, "5.1.3")
    assert broken_off(Stage.DOT, None, "closed") == (Stage.DOT, Lost("DOT: closed"))
    farewell = Foreign(421, "4.4.2", "bye")
    assert broken_off(Stage.CONTENT, farewell, "closed") == (Stage.CONTENT, farewell)
