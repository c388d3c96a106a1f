"""Waits for what programs that cannot tell leave in files."""

import asyncio
import time
from collections.abc import Callable


async def until(
    predicate: Callable[[], object], within: float = 30.0, story: Callable[[], str] = lambda: ""
) -> None:
    """Return once `predicate()` is true. `story`: what to show when it does not become so."""
    deadline = time.monotonic() + within
    while not predicate():
        assert time.monotonic() < deadline, f"not within {within:g} s\n{story()}"
        await asyncio.sleep(0.02)
