"""What a packed entry says is what was put into it, and entries compare as the mails do."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.mail.records import Kind, State
from services.deliver import packed
from services.deliver.packed import Waiting

times = st.floats(0, 1e11)
offsets = st.integers(0, 2**63 - 1)
mails = st.builds(
    Waiting,
    arrived=times,
    id=st.text("abcdefghijklmnopqrstuvwxyz234567.", min_size=1, max_size=64),
    domain=st.just("office.example"),
    next_hop=st.just("mail.example"),
    kind=st.sampled_from(Kind),
    state=st.sampled_from(State),
    due=times | st.just(0.0),
    size=st.integers(0, 2**32 - 1),
    offset=offsets,
    content=offsets,
    first=offsets,
    chunks=st.integers(0, 2**16 - 1),
    delay_told=st.booleans(),
)
routes = st.integers(0, 2**32 - 1)


@given(mails, routes)
def test_nothing_is_lost(mail: Waiting, route: int) -> None:
    entry = packed.packed(mail, route)
    assert packed.unpacked(entry, mail.domain, mail.next_hop, mail.kind) == mail
    assert packed.id_of(entry) == mail.id
    assert (packed.due_at(entry), packed.arrived_at(entry)) == (mail.due, mail.arrived)
    assert (packed.route_of(entry), packed.size_of(entry)) == (route, mail.size)
    assert packed.is_ready(entry) is (mail.due == 0)
    assert packed.is_still(entry) is mail.still


@given(mails, mails)
def test_entries_compare_as_mails_are_delivered(one: Waiting, other: Waiting) -> None:
    def order(mail: Waiting) -> tuple[float, float, int]:
        return mail.due, mail.arrived, mail.offset

    if order(one) < order(other):
        assert packed.packed(one, 1) < packed.packed(other, 0)


@given(mails, times)
def test_another_due_time_changes_nothing_else(mail: Waiting, due: float) -> None:
    entry = packed.with_due(packed.packed(mail, 0), due)
    assert packed.unpacked(entry, mail.domain, mail.next_hop, mail.kind) == replace(mail, due=due)


@given(mails, offsets)
def test_what_a_mail_needs(mail: Waiting, begin: int) -> None:
    needed = packed.needs(packed.packed(mail, 0), packed.packed_offset(begin))
    assert int.from_bytes(needed) == mail.needs(begin)


def test_what_an_entry_has_no_room_for() -> None:
    """A content of 5 GiB in 70,000 chunks counts as the most there is room for, and nothing fails."""
    mail = Waiting(1.0, "a", "x", "x", Kind.RELAYED, State.QUEUED, 0.0, 5 * 2**30, 1, 1, 1, 70_000)
    known = packed.unpacked(packed.packed(mail, 0), "x", "x", Kind.RELAYED)
    assert (known.size, known.chunks) == (2**32 - 1, 2**16 - 1)
