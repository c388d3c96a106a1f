"""Memory that is free goes back to the system: large blocks at once, the rest now and then.

Shell: it sets up the C library. glibc keeps the blocks of a size that was freed once, to be fast next time;
after a thousand contents at once the process would stay twice as large as what it holds. But each page that
is given back costs a fault when it is needed again, so some of the heap's end stays for a while.
"""

import asyncio
import ctypes

from libs.runtime.run import Life

LARGE_OCTETS = 64 * 1024
KEPT_OCTETS = 4 * 2**20
GIVE_BACK_S = 1.0

# mallopt(3). Setting a threshold ends its growing. One arena for all threads, of which only one runs Python
# at a time, has one end that is kept or given back.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def set_up() -> bool:
    """Call once, before the first large block. False: the C library has no such settings (it is not
    glibc)."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, LARGE_OCTETS), (_TRIM_THRESHOLD, KEPT_OCTETS))
    return [set_option(*option) for option in wanted] == [1, 1, 1]


def give_back() -> None:
    """All free pages, wherever they are in the heap."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def keep_small(life: Life) -> None:
    """The service of a process that gives back every GIVE_BACK_S."""
    life.ready()
    while not life.must_drain.is_set():
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                await life.must_drain.wait()
        except TimeoutError:
            give_back()
