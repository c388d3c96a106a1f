"""What is kept of an examination, what became different, whose turn it is; who is known, in one reading."""

from hypothesis import given
from hypothesis import strategies as st

from libs.log.contract import Record
from libs.mail.codec import encode
from libs.mail.knowledge import Health, PrimaryFacts, PrimaryState, RecipientStatus, RecipientTry, Status
from libs.mail.reply import parse_line
from libs.mail.speaks import Stage
from services.control.checkup import SPREAD, again, changes, checkup, counts, due
from services.control.examined import Dns, Examined, Exchange, Heard, Known, Visit
from services.control.findings import Kind
from services.control.recipients import Census, Few

OURS = ("mx1.backup.example",)


def seen(reply: str = "450 4.2.0 Greylisted", at: str = "192.0.2.25") -> Examined:
    heard = Heard(Stage.RCPT, parse_line(reply))
    visit = Visit("mail.office.example", at, greeting="220 hi", postmaster=heard, nobody=heard)
    primary = PrimaryState("office.example", Health.UP, 1.0, mx=("mail.office.example",))
    known = Known(registered=True, deliverable=1, primary=primary)
    exchanges = (Exchange(10, "mail.office.example", (at,)), Exchange(20, *OURS, ("192.0.2.1",), ours=True))
    return Examined("office.example", OURS, Dns.OK, exchanges, visits=(visit,), known=known)


def test_what_was_seen_is_kept_whole() -> None:
    assert checkup(seen(), 7.0).seen() == seen()


def test_a_row_counts_what_is_more_than_a_note() -> None:
    """Pending and greylisted; no TLS."""
    assert counts(None) == {"examined": 0.0, "wrong": 0, "warnings": 0}
    assert counts(checkup(seen(), 7.0)) == {"examined": 7.0, "wrong": 2, "warnings": 1}


def test_what_came_and_what_went() -> None:
    """Of the first examination nothing is said, nor of another reply to the same."""
    first, other = checkup(seen(), 1.0), checkup(seen("450 4.2.0 Greylisted again"), 2.0)
    well = checkup(seen("250 2.1.5 Ok"), 3.0)
    assert list(changes(None, first)) == list(changes(first, other)) == []
    said = [(word, each.kind, each.at) for word, each in changes(other, well)]
    assert said == [
        ("came", Kind.ACCEPTS_ALL, "192.0.2.25"),
        ("came", Kind.SPF_UNTRIED, "192.0.2.25"),
        ("went", Kind.GREYLISTED, "192.0.2.25"),
    ]
    assert [word for word, _ in changes(well, other)] == ["came", "went", "went"]


def test_whose_turn_it_is() -> None:
    """Who never was examined, by name; then who waits longest, once it is time."""
    assert due(["b", "a", "c"], {"c": 1.0}, 5.0) == "a"
    assert due(["b", "a"], {"a": 5.0, "b": 4.0}, 5.0) == "b"
    assert due(["b", "a"], {"a": 5.1, "b": 6.0}, 5.0) is None
    assert due([], {}, 5.0) is None


@given(st.floats(0, 1e9), st.floats(0.1, 1e6), st.floats(0, 1))
def test_the_next_time_is_spread(now: float, every_s: float, chance: float) -> None:
    assert (
        now + every_s * (1 - SPREAD) * 0.999
        <= again(now, every_s, chance)
        <= now + every_s * (1 + SPREAD) * 1.001
    )


def test_who_is_known_of_each_domain() -> None:
    """Not of another era, not denied, not forgotten; tries and facts are no recipients."""
    census = Census({"office.example": 2, "shop.example": 0})

    def told(name: str, status: Status | None, era: int = 2) -> None:
        value = None if status is None else encode(RecipientStatus(name, status, 1.0, 1.0, era=era))
        census.fold(Record("recipients", 0, 0, name.encode(), value, {}, 1.0))

    for name in ("bob@office.example", "ann@office.example", "eve@office.example"):
        told(name, Status.DELIVERABLE)
    told("old@office.example", Status.DELIVERABLE, era=1)
    told("kim@shop.example", Status.DELIVERABLE, era=0)
    told("kim@shop.example", None)
    told("eve@office.example", Status.UNDELIVERABLE)
    for key, value in (
        ("try:tom@office.example", RecipientTry("tom@office.example", 1.0, "greylisted", era=2)),
        ("@office.example", PrimaryFacts("office.example", "open", 1.0, era=2)),  # type: ignore[arg-type]
    ):
        census.fold(Record("recipients", 0, 0, key.encode(), encode(value), {}, 1.0))
    assert census.few() == {"office.example": Few(2, "ann@office.example")}
