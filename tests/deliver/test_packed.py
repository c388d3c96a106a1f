"""What a packed entry says is what was put into it, and entries compare as the mails do."""

from hypothesis import given
from hypothesis import strategies as st

from libs.mail.records import State
from services.deliver import packed
from services.deliver.packed import Fields

times = st.floats(0, 1e11)
offsets = st.integers(0, 2**63 - 1)
entries = st.builds(
    Fields,
    due=times | st.just(0.0),
    arrived=times,
    offset=offsets,
    content=offsets,
    first=offsets,
    size=st.integers(0, 2**32 - 1),
    chunks=st.integers(0, 2**16 - 1),
    route=st.integers(0, 2**32 - 1),
    state=st.sampled_from(State),
    delay_told=st.booleans(),
    id=st.text("abcdefghijklmnopqrstuvwxyz234567.", min_size=1, max_size=64),
)


@given(entries)
def test_nothing_is_lost(fields: Fields) -> None:
    entry = packed.packed(fields)
    assert packed.unpacked(entry) == fields
    assert packed.id_of(entry) == fields.id
    assert (packed.due_at(entry), packed.arrived_at(entry)) == (fields.due, fields.arrived)
    assert (packed.route_of(entry), packed.size_of(entry)) == (fields.route, fields.size)
    assert packed.is_ready(entry) is (fields.due == 0)
    assert packed.is_still(entry) is (fields.state not in (State.QUEUED, State.DEFERRED))


@given(entries, entries)
def test_entries_compare_as_mails_are_delivered(one: Fields, other: Fields) -> None:
    def order(fields: Fields) -> tuple[float, float, int]:
        return fields.due, fields.arrived, fields.offset

    if order(one) < order(other):
        assert packed.packed(one) < packed.packed(other)


@given(entries, times)
def test_another_due_time_changes_nothing_else(fields: Fields, due: float) -> None:
    assert packed.unpacked(packed.with_due(packed.packed(fields), due)) == fields._replace(due=due)


@given(entries, offsets)
def test_what_a_mail_needs(fields: Fields, begin: int) -> None:
    needed = packed.needs(packed.packed(fields), packed.packed_offset(begin))
    assert int.from_bytes(needed) == (fields.content if fields.content >= begin else fields.first)


def test_what_an_entry_has_no_room_for() -> None:
    """A content of 5 GiB in 70,000 chunks counts as the most there is room for, and nothing fails."""
    fields = Fields(0.0, 1.0, 1, 1, 1, 5 * 2**30, 70_000, 0, State.QUEUED, False, "a")
    known = packed.unpacked(packed.packed(fields))
    assert (known.size, known.chunks) == (2**32 - 1, 2**16 - 1)
