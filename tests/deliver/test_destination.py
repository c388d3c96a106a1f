"""The health of a next hop: tables of what is seen, and drawn sequences that must keep the promises."""

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.mail.knowledge import Health
from services.deliver.destination import (
    Answered,
    Closed,
    Deferred,
    Destination,
    Flushed,
    Gates,
    Opened,
    Overloaded,
    Pace,
    ProbeNow,
    Probing,
    Refused,
    Seen,
    Send,
    Shut,
    Succeeded,
    on,
    patient,
    permit,
    spaced,
    void,
)

PACE = Pace()
REMOTE = Pace(remote=True)
MOST = 5


def after(*seen: Seen, start: float = 100.0, pace: Pace = PACE, step: float = 1.0) -> Destination:
    destination = Destination(since=0.0)
    for number, what in enumerate(seen):
        destination = on(destination, what, start + number * step, 0.0, pace, most=MOST)
    return destination


def test_slow_start() -> None:
    """After an outage one connection, then 2, 4 and as many as the settings allow; trouble: one again."""
    d = after(Closed("refused"), Opened())
    windows = []
    for number in range(4):
        windows.append(permit(d, Gates(), 200.0, PACE))
        d = on(d, Succeeded(), 200.0 + number, 0.0, PACE, most=MOST)
    assert windows == [Send(1), Send(2), Send(4), Send(5)]
    assert on(d, Deferred("a", "450"), 300.0, 0.0, PACE, most=MOST).window == 1


def test_one_probe_of_many_is_patient() -> None:
    """A server that greets after a minute is found within ten minutes; it is no probe that finds it gone."""
    d, patiently = after(Closed("timeout")), []
    for number in range(60):
        patiently.append(patient(d))
        d = on(d, Closed("timeout"), 200.0 + number, 0.0, PACE, most=MOST)
    assert [number for number, is_patient in enumerate(patiently) if is_patient] == [18, 38, 58]
    assert not patient(on(d, Opened(), 300.0, 0.0, PACE, most=MOST))


def test_a_rate_is_even() -> None:
    assert (spaced(100.0, 0), spaced(100.0, 60), spaced(100.0, 1)) == (100.0, 101.0, 160.0)


def test_probes() -> None:
    """While down: one probe each 15 s in the first 6 h, each 60 s after, ±10 %; never two at once."""
    d = after(Closed("refused"))
    assert permit(d, Gates(), 100.0, PACE) == Shut(115.0)
    assert permit(d, Gates(), 115.0, PACE) == ProbeNow()
    d = on(d, Probing(), 115.0, 1.0, PACE, most=MOST)
    assert isinstance(permit(d, Gates(), 200.0, PACE), Shut)
    d = on(d, Closed("timeout"), 120.0, 0.0, PACE, most=MOST)
    assert permit(d, Gates(), 120.0, PACE) == Shut(115.0 + 16.5)
    assert d.since == 100.0
    late = 100.0 + 6 * 3600
    d = on(d, Probing(), late, -1.0, PACE, most=MOST)
    d = on(d, Closed("timeout"), late + 5, 0.0, PACE, most=MOST)
    assert permit(d, Gates(), late + 5, PACE) == Shut(late + 54.0)


def test_first_mail_within_20_s() -> None:
    """With the defaults a primary that is back is probed within 16.5 s."""
    assert PACE.probe_s * 1.1 <= 16.5


def test_flush() -> None:
    """A flush probes a primary that is down at once, and tries a refusing one."""
    d = after(Closed("refused"), Flushed())
    assert permit(d, Gates(), 101.0, PACE) == ProbeNow()
    d = after(Refused("a@x", "554"), Refused("b@x", "554"), Flushed())
    assert d.health is Health.REFUSING
    assert permit(d, Gates(), 102.0, PACE) == Send(1, single=True)


def test_refusing() -> None:
    """Two different reverse-paths refused in a row: refusing, one mail in 15 min, until a mail is accepted; a
    probe that goes through does not end it. Refused at the banner no mail has a backoff: it is us at once."""
    assert after(Refused("a@x", "554"), Refused("a@x", "554")).health is Health.UP
    assert after(Refused("a@x", "554"), Succeeded(), Refused("b@x", "554")).health is Health.UP
    for pace in (PACE, REMOTE):
        assert permit(after(Refused(None, "554"), pace=pace), Gates(), 100.0, pace) == Shut(100.0 + 900)
    d = after(Refused("a@x", "554"), Refused("b@x", "554"))
    assert permit(d, Gates(), 101.0, PACE) == Shut(101.0 + 900)
    assert permit(d, Gates(), 101.0 + 900, PACE) == Send(1, single=True)
    assert on(d, Opened(), 200.0, 0.0, PACE, most=MOST).health is Health.REFUSING
    assert on(d, Succeeded(), 200.0, 0.0, PACE, most=MOST).health is Health.UP


def test_deferring() -> None:
    """Five different mails deferred in a row are the primary's trouble; the first 250 voids their backoff."""
    row = [Deferred(id_, "451") for id_ in "abcde"]
    assert after(*row[:4], Deferred("a", "451")).health is Health.UP
    d = after(*row)
    assert d.health is Health.DEFERRING
    opened = on(d, Opened(), 200.0, 0.0, PACE, most=MOST)
    assert opened.health is Health.UP
    assert on(opened, Deferred("a", "451"), 201.0, 0.0, PACE, most=MOST).health is Health.DEFERRING
    assert void(opened, Succeeded()) == tuple("abcde")
    assert void(opened, Opened()) == ()
    lone = after(Deferred("a", "451"))
    assert void(lone, Succeeded()) == ()  # no outage: it was that mail


def test_overloaded() -> None:
    """421 and the like close the gate at once."""
    assert after(Overloaded("421 4.3.2 busy")).health is Health.DEFERRING


def test_gates() -> None:
    """Unknown, suspended and held domains are not dialled, not even by a probe."""
    d = after(Closed("refused"))
    for gates in (Gates(known=False), Gates(suspended=True), Gates(held=True)):
        assert permit(d, gates, 1e9, PACE) == Shut()
        assert permit(Destination(since=0.0), gates, 1e9, PACE) == Shut()


def test_remote() -> None:
    """A next hop that is nobody's primary is never probed: one mail tries it, ever less often."""
    d, now, pauses = Destination(since=0.0), 0.0, []
    for _ in range(9):
        d = on(d, Probing(), now, 0.0, REMOTE, most=MOST)
        d = on(d, Closed("refused"), now, 0.0, REMOTE, most=MOST)
        verdict = permit(d, Gates(), now, REMOTE)
        assert isinstance(verdict, Shut)
        pauses.append(verdict.until - now)
        now = verdict.until
        assert permit(d, Gates(), now, REMOTE) == Send(1, single=True)
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


seen = st.one_of(
    st.just(Probing()),
    st.just(Opened()),
    st.just(Succeeded()),
    st.just(Answered()),
    st.just(Closed("refused")),
    st.just(Overloaded("421")),
    st.just(Flushed()),
    st.builds(Deferred, st.sampled_from("abcdefg"), st.just("451")),
    st.builds(Refused, st.sampled_from(["x@x", "y@y", None]), st.just("554")),
)


@settings(deadline=None)
@given(st.lists(st.tuples(seen, st.floats(0.1, 4000), st.floats(-1, 1)), max_size=60), st.booleans())
def test_promises(steps: list[tuple[Seen, float, float]], remote: bool) -> None:
    """Whatever is seen: the window stays within its bounds, an outage is always looked at again soon, and
    health and times never contradict each other."""
    pace = Pace(remote=remote)
    d, now = Destination(since=0.0), 0.0
    for what, pause, jitter in steps:
        now += pause
        before, d = d, on(d, what, now, jitter, pace, most=MOST)
        assert 1 <= d.window <= MOST
        assert d.since <= now
        assert len(d.failures) <= 24
        if isinstance(what, Succeeded):
            assert d.health is Health.UP
            assert (d.accepted, d.confirmed, d.failures) == (now, now, ())
        if isinstance(what, Closed):
            assert d.health is Health.DOWN
            assert d.failures
        if before.health is d.health:
            assert d.since == before.since
        if d.health is not Health.UP and not d.probing:
            verdict = permit(d, Gates(), now, pace)
            if isinstance(verdict, Shut):
                assert now < verdict.until <= now + 3960
            assert not isinstance(permit(d, Gates(), now + 3960, pace), Shut)
