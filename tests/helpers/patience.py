"""How long a test waits for what must come about: far longer than it takes, which costs nothing where all is
well, and a busy machine breaks no test. What must not take long is compared with what it must not wait for.
"""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0


async def until(
    condition: Callable[[], Any], within: float = PATIENCE_S, story: Callable[[], str] = lambda: ""
) -> Any:
    """What `condition()` (a function, or a coroutine function) gives once it is true. AssertionError after
    `within` seconds, with what `story()` tells."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within:g} s\n{story()}"
        await asyncio.sleep(0.005)
