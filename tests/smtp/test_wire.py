"""Replies are read as they come: all at once, octet by octet, cut anywhere."""

import asyncio

from aiosmtplib.errors import SMTPResponseException
from hypothesis import given
from hypothesis import strategies as st

from libs.smtp.wire import Wire

TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
REPLIES = st.tuples(st.integers(200, 559), st.lists(TEXTS, min_size=1, max_size=4))


def octets(code: int, lines: list[str]) -> bytes:
    marks = ["-"] * (len(lines) - 1) + [" "]
    return "".join(f"{code}{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True)).encode()


async def heard(stream: bytes, cuts: list[int], count: int) -> list[tuple[int, str]]:
    """What is read of `stream`, which arrives cut at `cuts`."""
    wire = Wire(asyncio.get_running_loop())
    wire.expected = count
    at = 0
    for cut in sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)}):
        wire.data_received(stream[at:cut])
        at = cut
    found = [await wire.read_response(0) for _ in range(count)]
    assert wire.unsolicited is None
    return [(reply.code, reply.message) for reply in found]


@given(st.lists(REPLIES, min_size=1, max_size=6), st.lists(st.integers(0, 400), max_size=30))
def test_however_they_are_cut(replies: list[tuple[int, list[str]]], cuts: list[int]) -> None:
    """RFC 2920: what one write asked for may come in any number of pieces; each question has its reply."""
    stream = b"".join(octets(code, lines) for code, lines in replies)
    found = asyncio.run(heard(stream, cuts, len(replies)))
    assert found == [(code, "\n".join(lines)) for code, lines in replies]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_noise_is_a_reply_or_none(noise: bytes, cuts: list[int]) -> None:
    """Nothing else is raised, however it arrives, and the pieces do not change what is heard."""

    def result(at: list[int]) -> list[tuple[int, str]] | str:
        try:
            return asyncio.run(heard(b"250 first\r\n" + noise + b"\r\n", at, 1))
        except (SMTPResponseException, AssertionError, TimeoutError) as error:
            return type(error).__name__

    assert result(cuts) == result([])
