"""Replies by name."""

import pytest

from libs.mail import replies
from libs.mail.reply import Reply

NAMED = [(name, value) for name, value in vars(replies).items() if isinstance(value, Reply)]


@pytest.mark.parametrize(("name", "reply"), NAMED)
def test_codes_agree(name: str, reply: Reply) -> None:
    """RFC 2034 4: the enhanced code's class is that of the reply code; each line is at most 512 octets."""
    if reply.code // 100 in (2, 4, 5):
        assert reply.enhanced.split(".")[0] == str(reply.code)[0]
        assert len(reply.enhanced.split(".")) == 3
    for line in reply.wire().splitlines(keepends=True):
        assert line.endswith(b"\r\n")
        assert len(line) <= 512
    assert reply.text.isascii()


def test_the_ehlo_reply_is_one_line_a_keyword() -> None:
    """RFC 5321 4.1.1.1: `250-` on all lines but the last; no enhanced code in the EHLO reply."""
    assert replies.ehlo("mx1.backup.example", ("SIZE 10", "PIPELINING")).wire() == (
        b"250-mx1.backup.example\r\n250-SIZE 10\r\n250 PIPELINING\r\n"
    )
