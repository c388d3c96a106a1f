"""What is late fails, what is done in time is let go."""

import asyncio
import weakref

import pytest

from libs.log.deadlines import Deadlines

SOON_S, LATE_S = 0.01, 60.0


def future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


async def test_what_is_late_fails_and_nothing_else() -> None:
    deadlines = Deadlines()
    late, done, patient, given_up = (future() for _ in range(4))
    for each in (late, done, given_up):
        deadlines.watch(each, SOON_S)
    deadlines.watch(patient, LATE_S)
    done.set_result(None)
    given_up.cancel()
    with pytest.raises(TimeoutError):
        await late
    await done
    assert not patient.done()
    assert given_up.cancelled()


async def test_the_next_one_is_watched_as_well() -> None:
    deadlines = Deadlines()
    for _ in range(3):
        late = future()
        deadlines.watch(late, SOON_S)
        with pytest.raises(TimeoutError):
            await late
    early, later = future(), future()
    deadlines.watch(early, SOON_S)
    early.add_done_callback(lambda _: deadlines.watch(later, SOON_S))
    for each in (early, later):
        with pytest.raises(TimeoutError):
            await each


async def test_what_is_done_is_not_kept() -> None:
    deadlines = Deadlines()
    done = future()
    kept = weakref.ref(done)
    deadlines.watch(done, LATE_S)
    done.set_result(None)
    del done
    deadlines.watch(future(), LATE_S)
    assert kept() is None
