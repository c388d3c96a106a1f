"""verify sees a chunk of a mail twice: accepted with temperror, whatever its domain wants refused."""

from pathlib import Path

import pytest

from tests.faults.reading import FORGED, LOGS, REFUSED, backup, index


@LOGS
@pytest.mark.parametrize("number", [0, 1])
async def test_a_chunk_comes_twice(
    tmp_path: Path, kind: str, number: int, request: pytest.FixtureRequest
) -> None:
    """The same mail is refused as soon as it is read as it was sent."""
    async with backup(tmp_path, kind, request) as at:
        bad = await at.verify(lambda record: [record] * (2 if index(record) == number else 1))
        assert (await at.mail(FORGED)).startswith("250 2.0.0")
        [fields] = await at.results()
        assert b"dkim=temperror" in fields
        assert b"dmarc=temperror" in fields
        await bad.stop()
        await at.verify()
        assert (await at.mail(FORGED)).startswith(REFUSED)
