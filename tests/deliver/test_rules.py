"""The brake, the schedule, retention and the octets on the wire: small rules, each by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.records import Kind, State
from libs.mail.reply import Foreign
from libs.mail.speaks import Stage
from libs.runtime.clocks import Clocks
from services.deliver import brake
from services.deliver.brake import Brake
from services.deliver.dsn import dsn_id
from services.deliver.outgoing import Replies, answers, header, kept
from services.deliver.retention import (
    GRACE_S,
    Live,
    Seen,
    ended,
    pins,
    truncate_before,
    younger_than,
)
from services.deliver.schedule import backoff_s, lifetime_s, noted, over, witnessed
from tests.helpers.clock import Clock

HOUR, DAY = 3600.0, 86400.0


# --- the brake (rule 9) ---


def test_one_refusal_pulls_it_after_an_outage() -> None:
    """A confirmed recipient refused, none accepted since the outage: pulled. One accepted before: not yet."""
    since = brake.outage_ended(Brake(), 0.0)
    assert brake.braked(brake.refused(since, "ann", 10.0), 10.0)
    good = brake.accepted(since, "bob", 5.0)
    one = brake.refused(good, "ann", 10.0)
    assert not brake.braked(one, 10.0)
    assert brake.braked(brake.refused(one, "eva", 11.0), 11.0)


def test_nothing_is_final_for_an_hour() -> None:
    """For an hour after an outage no refusal is final, brake or not."""
    since = brake.outage_ended(Brake(), 0.0)
    assert not brake.final(since, HOUR - 1)
    assert brake.final(since, HOUR)
    assert brake.final(Brake(), 0.0)


def test_without_an_outage() -> None:
    """In quiet times one refusal is a person who left; two different ones within an hour pull the brake."""
    one = brake.refused(Brake(), "ann", 0.0)
    assert not brake.braked(one, 0.0)
    assert not brake.braked(brake.refused(one, "ann", 5.0), 5.0)
    assert not brake.braked(brake.refused(one, "bob", HOUR + 1), HOUR + 1)
    assert brake.braked(brake.refused(one, "bob", HOUR - 1), HOUR - 1)


def test_it_ends() -> None:
    """The brake ends after 72 h, and when everybody who was refused is accepted again."""
    pulled = brake.refused(brake.outage_ended(Brake(), 0.0), "ann", 1.0)
    assert not brake.final(pulled, 71 * HOUR)
    assert brake.final(pulled, 73 * HOUR + 1)
    assert brake.braked(brake.outage_ended(pulled, 50.0), 60.0)
    assert brake.braked(brake.accepted(pulled, "bob", 5.0), 5.0)
    assert not brake.braked(brake.accepted(pulled, "ann", 5.0), 5.0)


# --- the schedule (rule 10) ---


def test_backoff() -> None:
    """5 min, doubled up to 2 h, within 10 % of it."""
    assert [backoff_s(n, 0.0) for n in (1, 2, 3, 4, 5, 6, 99)] == [300, 600, 1200, 2400, 4800, 7200, 7200]
    assert (backoff_s(1, 1.0), backoff_s(1, -1.0)) == (330, 270)


def test_lifetimes() -> None:
    """A DSN lives 5 d, mail to the operators 30 d, relayed mail as its domain says; without settings, on."""
    assert lifetime_s(Kind.DSN, 1.0) == 5 * DAY
    assert lifetime_s(Kind.OPERATOR, None) == 30 * DAY
    assert lifetime_s(Kind.RELAYED, 7.0) == 7.0
    assert over(0.0, lifetime_s(Kind.RELAYED, None), 1e9) is None
    assert over(100.0, 50.0, 150.0) is None
    assert over(100.0, 50.0, 151.0) == 1.0


@pytest.mark.parametrize(
    ("tries", "over_s", "now", "is_so"),
    [
        ((100.0, 200.0, 3700.0), 5000.0, 3700.0, True),
        ((100.0, 3700.0), 5000.0, 3700.0, False),  # two
        ((100.0, 200.0, 300.0), 5000.0, 300.0, False),  # within minutes
        ((100.0, 200.0, 3700.0), 3550.0, 3700.0, False),  # the first came before the end of the lifetime
        ((), 5000.0, 3700.0, False),
    ],
)
def test_witnesses(tries: tuple[float, ...], over_s: float, now: float, is_so: bool) -> None:
    """Three failures over an hour, all after the lifetime had ended."""
    assert witnessed(tries, over_s, now) is is_so


def test_own_tries_are_few() -> None:
    """Of a mail's own tries the first and the latest are kept."""
    tries: tuple[float, ...] = ()
    for at in range(10):
        tries = noted(tries, float(at))
    assert tries == (0.0, 7.0, 8.0, 9.0)


# --- retention (rule 5) ---


@given(
    st.builds(Seen, *[st.integers(0, 50)] * 3, st.none() | st.integers(0, 50), st.booleans()), st.booleans()
)
def test_truncation(seen: Seen, agree: bool) -> None:
    """Never beyond young content or content that is referred to; never blind, behind or in doubt of time."""
    before = truncate_before(seen, 0, clocks_agree=agree)
    if before is not None:
        assert before <= seen.young
        assert seen.lowest is None or before <= seen.lowest
        assert agree
        assert not seen.blind
        assert seen.folded >= seen.end
    elif agree and not seen.blind and seen.folded >= seen.end:
        assert min(seen.young, seen.young if seen.lowest is None else seen.lowest) == 0


def test_older_clock_counts() -> None:
    """Young is what the slower of both clocks calls young."""
    assert younger_than(1000.0 + 7200, 99999.0, GRACE_S) == younger_than(99999.0, 8200.0, GRACE_S) == 1000.0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=30), st.integers(0, 5))
def test_what_pins(contents: list[tuple[bool, int]], more: int) -> None:
    """`contents`: (needed, chunks) one after the other. With what is to be written again gone, no dead
    content lies among what stays; nothing is written again for nothing."""
    lives, at = [], 0
    for needed, chunks in contents:
        if needed:
            lives.append(Live(at, chunks))
        at += chunks
    before = at + more  # `more` dead ones at the end
    count = pins(lives, before)
    stays = lives[count:]
    assert dead(stays, stays[0].content if stays else before, before) == 0
    if count:
        assert dead(lives[count - 1 :], lives[count - 1].content, before) > 0


def dead(lives: list[Live], begin: int, before: int) -> int:
    return before - begin - sum(live.chunks for live in lives)


def test_parked() -> None:
    """Parked mail ends after 7 d, only while the clocks agree; other mail does not end by age."""
    assert ended(State.PARKED, 0.0, 7 * DAY, 7 * DAY, clocks_agree=True)
    assert not ended(State.PARKED, 0.0, 7 * DAY, 7 * DAY, clocks_agree=False)
    assert not ended(State.PARKED, 0.0, 7 * DAY - 1, 7 * DAY, clocks_agree=True)
    assert not ended(State.HELD, 0.0, 99 * DAY, 7 * DAY, clocks_agree=True)


def test_clocks() -> None:
    """Rule 10: clocks agree only by a recent acknowledgement that was less than two minutes off."""
    clock = Clock()
    clocks = Clocks(clock)
    assert not clocks.agree
    clocks.heard(clock.wall() - 100)
    assert clocks.agree
    clock.advance(121)
    assert not clocks.agree
    clocks.heard(clock.wall() + 130)
    assert not clocks.agree
    clocks.heard(clock.wall())
    assert clocks.agree
    clock.jump_wall(130)
    assert not clocks.agree  # ours jumped, though no acknowledgement has shown it yet
    clock.jump_wall(-130)
    assert clocks.agree
    assert not Clocks(clock, lambda: False).agree


# --- the wire ---


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6), st.integers(1, 20))
def test_strip(content: bytes, marks: list[int], size: int) -> None:
    """Octet ranges are left out exactly, wherever the borders of the chunks lie."""
    ordered = sorted(set(marks))
    strip = tuple(zip(ordered[::2], ordered[1::2], strict=False))
    sent = b"".join(kept(content[at : at + size], at, strip) for at in range(0, len(content), size))
    out = {index for start, end in strip for index in range(start, end)}
    assert sent == bytes(octet for index, octet in enumerate(content) if index not in out)


def test_header() -> None:
    """The header ends before the empty line; a content may have none, or nothing else."""
    assert header(b"a: b\r\nc: d\r\n\r\nbody\r\n\r\n") == b"a: b\r\nc: d\r\n"
    assert header(b"\r\nbody") == b""
    assert header(b"a: b\r\n") == b"a: b\r\n"


def test_answers() -> None:
    """Each recipient gets the reply that decided: MAIL for all, RCPT for one, the final dot for the rest."""
    ok, no = Foreign(250, "2.0.0", ""), Foreign(550, "5.1.1", "")
    go, busy = Foreign(354, "", ""), Foreign(451, "4.3.0", "")
    assert answers((3, 5), Replies(no, (), None, None)) == {3: (Stage.MAIL, no), 5: (Stage.MAIL, no)}
    assert answers((3, 5), Replies(ok, (ok, no), go, busy)) == {3: (Stage.DOT, busy), 5: (Stage.RCPT, no)}
    assert answers((3,), Replies(ok, (ok,), busy, None)) == {3: (Stage.DATA, busy)}


def test_dsn_id() -> None:
    """The id of a DSN follows from mail and recipients, in whatever order, and looks like a mail's id."""
    one = dsn_id("mail", "failed", ["a@x", "b@x"])
    assert one == dsn_id("mail", "failed", ["b@x", "a@x"])
    assert one != dsn_id("mail", "failed", ["a@x"])
    assert one != dsn_id("other", "failed", ["a@x", "b@x"])
    assert len(one) == 24
    assert one.isalnum()
