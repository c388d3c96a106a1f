"""verify does not see all chunks of a mail: accepted with temperror, whatever its domain wants refused."""

from pathlib import Path

import pytest

from tests.faults.reading import FORGED, LOGS, backup, index, passes_unread


@LOGS
@pytest.mark.parametrize("number", [0, 1])
async def test_a_chunk_is_missing(
    tmp_path: Path, kind: str, number: int, request: pytest.FixtureRequest
) -> None:
    async with backup(tmp_path, kind, request) as at:
        await passes_unread(at, lambda record: [] if index(record) == number else [record])


@LOGS
async def test_the_last_chunk_is_missing(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """Then there is no verdict at all, and nobody waits for ever."""
    async with backup(tmp_path, kind, request, verdict_s=0.5) as at:
        await at.verify(lambda record: [] if record.header("trace") else [record])
        assert (await at.mail(FORGED)).startswith("250 2.0.0")
        [fields] = await at.results()
        assert b"dmarc=temperror" in fields
