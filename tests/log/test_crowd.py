"""When records gather."""

from libs.log.crowd import CROWD, WITHIN_S, Crowd


def test_what_comes_alone_does_not_gather() -> None:
    """200 a second, for 5 s."""
    crowd = Crowd()
    for number in range(1000):
        crowd.came(number * 0.005)
        assert not crowd.gathers(number * 0.005)


def test_a_crowd_gathers_until_it_is_over() -> None:
    """One after the other, and many at once."""
    for counts in ([1] * CROWD, [3, CROWD], [CROWD * 100]):
        crowd = Crowd()
        for number, count in enumerate(counts):
            assert not crowd.gathers(number * 0.001)
            crowd.came(number * 0.001, count)
        last = (len(counts) - 1) * 0.001
        assert crowd.gathers(last)
        assert not crowd.gathers(last + WITHIN_S)


def test_nothing_is_no_crowd() -> None:
    crowd = Crowd()
    crowd.came(1.0, 0)
    assert not crowd.gathers(1.0)
