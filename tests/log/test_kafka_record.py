"""Records that came along with the one that was asked for."""

from libs.log.contract import Record
from libs.log.kafka_record import KEPT_S, Kept


def record(offset: int, size: int = 10) -> Record:
    return Record("content", 1, offset, b"key", b"x" * size, (), 0.0)


def test_each_is_given_once() -> None:
    kept = Kept()
    kept.keep([record(5), record(6)], 100.0)
    assert kept.take("content", 1, 6, 101.0) == record(6)
    assert kept.take("content", 1, 6, 101.0) is None
    assert kept.take("queue", 1, 5, 101.0) is None


def test_for_a_moment_only() -> None:
    """A record may be compacted away: what is too old is asked for again."""
    kept = Kept()
    kept.keep([record(5), record(6)], 100.0)
    assert kept.take("content", 1, 5, 100.1 + KEPT_S) is None
    kept.keep([record(7)], 100.1 + KEPT_S)
    assert kept.take("content", 1, 6, 100.1) is None


def test_within_its_room() -> None:
    """The oldest go first, and one that is larger than the room is not kept at all."""
    kept = Kept(octets=100)
    kept.keep([record(offset) for offset in range(20)], 1.0)
    assert [offset for offset in range(20) if kept.take("content", 1, offset, 1.0)] == list(range(10, 20))
    kept.keep([record(1, 101)], 1.0)
    assert kept.take("content", 1, 1, 1.0) is None
