"""The stream after 354: RFC 5321 sections 4.5.2 (transparency), 2.3.8 (line ends), and the threat table."""

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.unstuff import HEAD_OCTETS, Unstuff

EXPLOSIVE = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a", b"Received: x", b"\xe4", b"\x00"]), max_size=30
).map(b"".join)


def run(octets: bytes, cuts: list[int], *, reject: bool = False) -> tuple[Unstuff, bytes, bytes]:
    """Feed `octets` in blocks that end at `cuts`; the state, the content, what was left."""
    state, content, wire = Unstuff(reject_bare_lf=reject), b"", bytearray()
    places = sorted({min(cut, len(octets)) for cut in cuts} | {len(octets)})
    start = 0
    for place in places:
        wire += octets[start:place]
        start = place
        if wire and not state.ended and not state.fault:
            content += state.feed(wire)
    return state, content, bytes(wire)


def stuffed(content: bytes) -> bytes:
    return re.sub(rb"(?m)^\.", b"..", content) + b".\r\n"


@given(
    st.lists(st.binary(max_size=20).map(lambda line: re.sub(rb"[\r\n]", b"", line)), max_size=8),
    st.lists(st.integers(0, 120), max_size=6),
    st.binary(max_size=20),
)
def test_content_comes_out_as_it_went_in(lines: list[bytes], cuts: list[int], after: bytes) -> None:
    """RFC 5321 4.5.2: what the sender stuffs we unstuff, however the network cuts it; pipelined commands
    after the end stay."""
    content = b"".join(line + b"\r\n" for line in lines)
    state, got, left = run(stuffed(content) + after, [*cuts, len(stuffed(content))])
    assert (state.ended, state.fault, got) == (True, False, content)
    assert state.size == len(content)
    assert state.eightbit == (not content.isascii())
    assert after.endswith(left)


@given(EXPLOSIVE, st.lists(st.integers(0, 60), max_size=8), st.booleans())
def test_cuts_change_nothing(octets: bytes, cuts: list[int], reject: bool) -> None:
    """The judgement of a stream does not depend on how it was cut into blocks."""
    octets += b"\r\n.\r\n"
    whole, content, _ = run(octets, [], reject=reject)
    state, got, _ = run(octets, cuts, reject=reject)
    assert (state.ended, state.fault) == (whole.ended, whole.fault)
    if not state.fault:
        assert got == content
        assert (state.size, state.eightbit, state.hops) == (whole.size, whole.eightbit, whole.hops)


@given(EXPLOSIVE, st.booleans())
def test_what_is_let_through_has_clean_line_ends(octets: bytes, reject: bool) -> None:
    """No bare CR, no bare LF and no lone dot between unequal line ends ever gets into what is stored, and the
    end is the first CR LF . CR LF."""
    wire = octets + b"\r\n.\r\nQUIT\r\n"
    state, content, left = run(wire, [], reject=reject)
    data = (b"\r\n" + wire).partition(b"\r\n.\r\n")[0] + b"\r\n"
    bare_cr = re.search(rb"\r(?!\n)", data)
    bare_lf = re.search(rb"(?<!\r)\n", data)
    lone_dot = re.search(rb"(?:^|\r|\n)\.(?:\r|\n)", data)
    assert state.fault == bool(bare_cr or lone_dot or (bare_lf and reject))
    if not state.fault:
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
        assert left.endswith(b"QUIT\r\n")


@pytest.mark.parametrize("before", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("after", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4])
def test_every_false_end_of_data(before: bytes, after: bytes, cut: int) -> None:
    """LF.LF, LF.CRLF, CRLF.LF, CR.CR and relatives are a fault before another command can be read; only
    CR LF . CR LF is an end."""
    octets = b"hello" + before + b"." + after + b"MAIL FROM:<eve@sender.example>\r\n"
    state, _, left = run(octets, [5 + cut])
    if (before, after) == (b"\r\n", b"\r\n"):
        assert state.ended
        assert left == b"MAIL FROM:<eve@sender.example>\r\n"
    else:
        assert state.fault
        assert not state.ended


@pytest.mark.parametrize("end", [b".\n", b".\r", b"\n.\n"])
def test_false_ends_right_after_data(end: bytes) -> None:
    """The line of DATA ended with CR LF: `.LF` right after 354 is a false end, too."""
    assert run(end + b"x\r\n", [])[0].fault


def test_an_empty_content() -> None:
    """A dot line right after 354 ends an empty content."""
    assert run(b".\r\n", [])[:2][1] == b""
    assert run(b".\r\n", [1, 2])[0].ended


def test_lone_lf_becomes_crlf() -> None:
    """A lone LF that cannot end the data becomes CR LF, then dots are taken off; a setting refuses it."""
    state, content, _ = run(b"a\nb\n..c\r\n.\r\n", [])
    assert content == b"a\r\nb\r\n.c\r\n"
    assert not state.fault
    assert run(b"a\nb\r\n.\r\n", [], reject=True)[0].fault


def test_hops_are_counted_in_the_header_only() -> None:
    """RFC 5321 6.3: Received fields of the header count, in any case, over block ends; the body's do not."""
    header = b"RECEIVED: a\r\n" + b"Received: b\r\n\tfolded\r\n" * 2 + b"X-Received: c\r\nSubject: x\r\n"
    octets = header + b"\r\nReceived: no\r\n.\r\n"
    for cuts in ([], [1, 3, 20, 50], list(range(len(octets)))):
        assert run(octets, cuts)[0].hops == 3
    assert run(b"\r\nReceived: no\r\n.\r\n", [])[0].hops == 0
    assert run(b"Received: x\r\n.\r\n", [])[0].hops == 1


def test_an_endless_line_stays_small() -> None:
    """50 MB without a line end, and 3 MB of empty lines, leave nothing behind in memory."""
    state = Unstuff()
    tracemalloc.start()
    for block in [b"x" * 500_000] * 100 + [b"\r\n" * 250_000] * 6:
        state.feed(bytearray(block))
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert state.size > 52_000_000
    assert now < 1_000_000
    assert peak < 5_000_000


def test_the_end_of_a_header_that_drips_in_is_looked_for_once() -> None:
    """What was searched before is not searched again: a drip feed would make that cost a look at the whole
    header a drop."""
    searched = 0

    class Watched(bytearray):
        def find(self, wanted: bytes, start: int = 0) -> int:  # type: ignore[override]
            nonlocal searched
            searched += len(self) - start
            return super().find(wanted, start)

    state, wire = Unstuff(), bytearray()
    state.head = Watched()
    for at in range(5000):
        wire += b"ab" if (at + 1) % 40 else b"\r\n"
        state.feed(wire)
    wire += b"\r\n\r\nbody\r\n"
    state.feed(wire)
    assert bytes(state.head).endswith(b"ab\r\n")
    assert searched < 5 * len(state.head)


@given(st.integers(-40, 40), st.integers(1, 60), st.booleans())
def test_results_behind_a_long_header(at: int, size: int, in_header: bool) -> None:
    """A field that may be forged is seen wherever blocks end, also where it is cut at the border of what is
    held; what stands in the body is no field."""
    before = b"A: " + b"b" * (HEAD_OCTETS - 3 + at - 2) + b"\r\n"
    field = b"AUTHENTICATION-results: us; spf=pass\r\n"
    octets = before + (field + b"\r\n" if in_header else b"\r\n" + field) + b".\r\n"
    state, wire = Unstuff(), bytearray()
    edge = HEAD_OCTETS - 100
    state.feed(bytearray(octets[:edge]))
    for start in range(edge, len(octets), size):
        wire += octets[start : start + size]
        state.feed(wire)
    assert state.ended
    assert state.hides is in_header
