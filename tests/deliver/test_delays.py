"""When the sender of a mail that waits is told: a day after it arrived, once, oldest first."""

from services.deliver.delays import SLICE_S, Delays


def test_due_after_its_moment_and_once() -> None:
    """Nothing comes before its moment, all of it within a slice, and nothing twice."""
    delays = Delays()
    delays.add("b", 5 * SLICE_S)
    delays.add("a", 2 * SLICE_S + 1)
    assert delays.due(2 * SLICE_S + 1, 10) == []
    assert delays.due(3 * SLICE_S, 10) == ["a"]
    assert delays.due(6 * SLICE_S, 10) == ["b"]
    assert delays.due(9 * SLICE_S, 10) == []


def test_what_has_ended_is_not_due() -> None:
    """A mail that ended is looked at no more; one that is not known is none of ours."""
    delays = Delays()
    delays.add("a", SLICE_S)
    delays.add("b", SLICE_S)
    delays.drop("a", SLICE_S)
    delays.drop("c", SLICE_S)
    delays.drop("b", 9 * SLICE_S)
    assert delays.due(3 * SLICE_S, 10) == ["b"]


def test_many_come_in_parts() -> None:
    """Who asks says how many; the others come next time, the oldest first."""
    delays = Delays()
    for number in range(5):
        delays.add(str(number), 0.0)
    delays.add("later", SLICE_S)
    assert delays.due(9 * SLICE_S, 3) == ["0", "1", "2"]
    assert delays.due(9 * SLICE_S, 3) == ["3", "4", "later"]
