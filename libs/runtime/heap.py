"""Large blocks of memory go back to the system when they are free.

Shell: it sets up the C library. glibc keeps the blocks of a size that was freed once, to be fast next time;
after a thousand contents at once the process would stay twice as large as what it holds.
"""

import ctypes

_MMAP_THRESHOLD = -3  # mallopt(3): M_MMAP_THRESHOLD; setting it also ends its growing
LARGE_OCTETS = 64 * 1024


def return_large_blocks() -> bool:
    """Call once, before the first large block. False: the C library has no such setting (it is not glibc)."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return set_option is not None and set_option(_MMAP_THRESHOLD, LARGE_OCTETS) == 1
