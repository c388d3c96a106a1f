"""How hypothesis looks for examples under `make chance`, and in which order files go to the workers."""

from pathlib import Path

import pytest
from hypothesis import settings

# New examples, many, and however slow the machine is.
settings.register_profile("chance", settings.get_profile("ci"), derandomize=False, max_examples=500)

HERE = Path(__file__).parent
# Folders with files that take long: begun last, one would keep its worker busy when the others are done.
LONG_FIRST = ("path", "log", "faults", "control", "runtime")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A stable order, so that all workers collect the same."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    folder = item.path.relative_to(HERE).parts[0]
    return LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)
