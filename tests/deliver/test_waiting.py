"""The index of waiting mail against a plain list that does the same slowly."""

import tracemalloc

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from libs.mail.records import Kind, State
from services.deliver.waiting import Index, Place, Waiting

HOPS = ("office.example", "shop.example")


def mail(
    number: int,
    hop: str = HOPS[0],
    *,
    arrived: float = 0.0,
    due: float = 0.0,
    state: State = State.QUEUED,
    content: int = 0,
) -> Waiting:
    return Waiting(
        arrived, f"mail{number:03}", hop, hop, Kind.RELAYED, state, due, 10, number, content, content, 1
    )


class Model(RuleBasedStateMachine):
    """Whatever is put, taken, deferred and dropped: the index gives what a sorted list would give."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.known: dict[str, Waiting] = {}
        self.out: set[str] = set()
        self.now = 100.0

    @rule(
        number=st.integers(0, 30),
        hop=st.sampled_from(HOPS),
        state=st.sampled_from([State.QUEUED, State.DEFERRED, State.HELD, State.PARKED]),
        late=st.integers(0, 50),
    )
    def put(self, number: int, hop: str, state: State, late: int) -> None:
        known = self.known.get(f"mail{number:03}")
        due = self.now + late - 25 if state is State.DEFERRED else 0.0
        where = known.next_hop if known else hop
        new = mail(number, where, arrived=float(number * 7 % 11), due=due, state=state, content=number)
        self.index.put(new)
        self.known[new.id] = new

    @rule(hop=st.sampled_from(HOPS), slow=st.booleans())
    def take(self, hop: str, slow: bool) -> None:
        there = [m for m in self.known.values() if m.next_hop == hop and m.id not in self.out and not m.still]
        ready = sorted(m for m in there if not m.due)
        deferred = sorted((m.due, m) for m in there if m.due and m.due <= self.now)
        got = self.index.take(hop, self.now, slow=slow)
        if deferred and (slow or not ready):
            assert got is not None
            assert got.due == deferred[0][0]
        elif ready:
            assert got == ready[0]
        else:
            assert got is None
        if got is not None:
            assert got == self.known[got.id]
            self.out.add(got.id)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), due=st.sampled_from([None, 0.0, 120.0]))
    def again(self, data: st.DataObject, due: float | None) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.out)))
        self.index.again(id_, due)
        self.out.discard(id_)
        if due is not None and not self.known[id_].still:
            self.known[id_] = self.index_form(id_, due)

    def index_form(self, id_: str, due: float) -> Waiting:
        m = self.known[id_]
        return mail(m.offset, m.next_hop, arrived=m.arrived, due=due, state=m.state, content=m.content)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.known)))
        assert self.index.drop(id_) == self.known.pop(id_)
        self.out.discard(id_)

    @rule(hop=st.sampled_from(HOPS))
    def hurry(self, hop: str) -> None:
        waiting = [
            m.id
            for m in self.known.values()
            if m.next_hop == hop and m.due and not m.still and m.id not in self.out
        ]
        assert self.index.hurry_all(hop) == len(waiting)
        for id_ in waiting:
            self.known[id_] = self.index_form(id_, 0.0)

    @rule(seconds=st.integers(1, 60))
    def later(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def agrees(self) -> None:
        assert {m.id: m for m in self.index} == self.known
        assert self.index.lowest_content(0) == min((m.content for m in self.known.values()), default=None)
        for hop in HOPS:
            counted = [m for m in self.known.values() if m.next_hop == hop and not m.still]
            count = self.index.count(hop)
            assert count.mails == len(counted)
            assert count.octets == 10 * len(counted)
            assert count.oldest == min((m.arrived for m in counted), default=0.0)
            old = {m.id for m in self.index.arrived_before(hop, 5.0)}
            assert old == {m.id for m in counted if m.arrived < 5.0 and m.id not in self.out and not m.still}
            there = [
                m for m in self.known.values() if m.next_hop == hop and not m.still and m.id not in self.out
            ]
            assert self.index.next_due(hop) == min((m.due for m in there), default=None)
        for id_, m in self.known.items():
            place = self.index.place(id_)
            if id_ in self.out:
                assert place is Place.OUT
            elif m.still:
                assert place is Place.STILL
            else:
                assert place is (Place.SLOW if m.due else Place.READY)


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestIndex = Model.TestCase


def test_slow_lane() -> None:
    """The slow lane never holds up the others: a deferred mail goes first only when the caller says so."""
    index = Index()
    index.put(mail(1, due=50.0, state=State.DEFERRED))
    index.put(mail(2, arrived=5.0))
    assert index.take(HOPS[0], 100.0, slow=False) == index.get("mail002")
    assert index.take(HOPS[0], 100.0, slow=False) == index.get("mail001")
    index.again("mail001")
    index.put(mail(3))
    assert index.take(HOPS[0], 100.0, slow=True) == index.get("mail001")


def test_memory() -> None:
    """A waiting mail costs at most 400 octets of memory, its id included."""
    tracemalloc.start()
    try:
        index = Index()
        for number in range(20_000):
            id_ = f"{number:024}"
            content = 900_000 + number
            index.put(
                Waiting(
                    1.8e9 + number,
                    id_,
                    "".join(["office", ".example"]),
                    "".join(["office", ".example"]),
                    Kind.RELAYED,
                    State.QUEUED,
                    0.0,
                    10_000 + number,
                    500_000 + number,
                    content,
                    content,
                    1,
                )
            )
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / len(index) <= 400


def test_many_rewrites() -> None:
    """A mail that is deferred again and again leaves no entries behind: the lanes are swept."""
    index = Index()
    for number in range(10):
        index.put(mail(number))
    for turn in range(2000):
        index.put(mail(turn % 10, due=1000.0 + turn, state=State.DEFERRED))
    hop = index._hops[HOPS[0]]
    assert len(hop.slow) + len(hop.ready) <= 100


def test_an_id_that_comes_again_elsewhere_leaves_nothing_behind() -> None:
    """Entries of a mail that is gone are stepped over, also when its id waits for another next hop."""
    index = Index()
    for each in (mail(4), mail(5), mail(0)):
        index.put(each)
    index.drop("mail004")
    index.put(mail(4, HOPS[1]))
    index.drop("mail005")
    index.drop("mail000")
    index.put(mail(6, due=75.0, state=State.DEFERRED))
    assert index.next_due(HOPS[0]) == 75.0
    assert [each.id for each in index.arrived_before(HOPS[0], 5.0)] == ["mail006"]


def test_a_mail_that_lies_twice_in_the_slow_lane_is_one() -> None:
    """Deferred twice to the same moment, it has two entries, and is hurried once and taken once."""
    index = Index()
    index.put(mail(0, due=75.0, state=State.DEFERRED))
    index.put(mail(0, due=75.0, state=State.DEFERRED))
    assert index.hurry_all(HOPS[0]) == 1
    assert index.take(HOPS[0], 100.0, slow=True) == index.get("mail000")
    assert index.take(HOPS[0], 100.0, slow=True) is None
