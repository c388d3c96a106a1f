"""verify sees a chunk of a mail twice: accepted with temperror, whatever its domain wants refused."""

from pathlib import Path

import pytest

from tests.faults.reading import LOGS, backup, index, passes_unread


@LOGS
@pytest.mark.parametrize("number", [0, 1])
async def test_a_chunk_comes_twice(
    tmp_path: Path, kind: str, number: int, request: pytest.FixtureRequest
) -> None:
    async with backup(tmp_path, kind, request) as at:
        await passes_unread(at, lambda record: [record] * (2 if index(record) == number else 1))
