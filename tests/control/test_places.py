"""The table of places against a dict that does the same slowly, and what is asked of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.records import State
from services.control.places import Places
from services.control.queue import Cursor, Place

PLACES = {
    b"c": Place(0, 1, "a.example", 3.0),
    b"a": Place(0, 2, "a.example", 1.0),
    b"d": Place(1, 1, "b.example", 1.0),
    b"b": Place(0, 3, "a.example", 2.0),
    b"e": Place(1, 4, "b.example", 0.5, State.PARKED, 5.0),
    b"f": Place(1, 5, "b.example", 4.0, State.PARKED, 9.0),
    b"g": Place(1, 6, "", 6.0, None),
}

keys = st.sampled_from([b"a", b"b", b"c", b"\xff"])
places = st.builds(
    Place,
    partition=st.integers(0, 11),
    offset=st.integers(0, 2**63 - 1),
    domain=st.sampled_from(["", "a.example", "b.example"]),
    arrived=st.floats(0, 1e11),
    state=st.none() | st.sampled_from(State),
    parked=st.floats(0, 1e11),
    ours=st.booleans(),
)


def filled() -> Places:
    table = Places()
    table.update(PLACES)
    return table


@given(st.lists(st.tuples(keys, st.none() | places)))
def test_it_is_a_dict(steps: list[tuple[bytes, Place | None]]) -> None:
    """Whatever is set and taken away."""
    table, known = Places(), dict[bytes, Place]()
    for key, place in steps:
        if place is None:
            assert table.pop(key, None) == known.pop(key, None)
        else:
            table[key] = known[key] = place
        assert (dict(table), len(table)) == (known, len(known))
    for name in ("", "a.example", "c.example"):
        assert table.waiting(name) == sum(each.domain == name and not each.ours for each in known.values())


def test_a_key_that_is_not_there() -> None:
    """As with any mapping."""
    with pytest.raises(KeyError):
        Places()[b"a"]
    with pytest.raises(KeyError):
        del Places()[b"a"]


def test_pages_are_oldest_first_and_complete() -> None:
    """Turning pages shows each mail once, whatever arrived at the same moment."""
    table, found = filled(), list[bytes]()
    after = None
    while part := table.page(None, after, 1, vault=False):
        (key, at), found = part[0], [*found, part[0][0]]
        after = Cursor(at.arrived, key.decode())
    assert found == [b"e", b"a", b"d", b"b", b"c", b"f"]
    assert table.total(None, vault=False) == 6


def test_a_page_of_one_domain() -> None:
    """Only its mail."""
    table = filled()
    assert [key for key, _ in table.page("a.example", None, 2, vault=False)] == [b"a", b"b"]
    assert table.total("a.example", vault=False) == 3
    assert table.page("c.example", None, 2, vault=False) == []


def test_a_page_of_the_vault() -> None:
    """What is parked, what lost its content, what nobody can read."""
    table = filled()
    table[b"h"] = Place(1, 7, "b.example", 7.0, State.CONTENT_LOST)
    assert [key for key, _ in table.page(None, None, 9, vault=True)] == [b"e", b"f", b"g", b"h"]
    assert table.total("b.example", vault=True) == 3


def test_the_summary_counts_each_domain() -> None:
    """How much waits for whom."""
    assert filled().summary() == {"a.example": 3, "b.example": 3, "": 1}


def test_the_newest_parked_mail_counts() -> None:
    """Of what is parked, whatever else is in the queue."""
    assert filled().parked() == {"b.example": 9.0}
    assert [filled().parked_of(name) for name in ("a.example", "b.example")] == [0, 2]
