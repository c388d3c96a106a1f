"""The embedded log: the conformance suite, and what only a log in a file can get wrong."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.log.contract import Log
from libs.log.sqlite import SqliteLog
from libs.runtime.clock import SystemClock
from tests.log.contract import Contract


class SqliteLogs:
    """One file; every member is the same Log, as in solo."""

    partitions = 4
    content, compacted = "content", "queue"

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    async def member(self) -> Log:
        return self._log

    async def compact(self, partition: int) -> None:
        await self._log.sweep(lag_s=0)


class TestSqlite(Contract):
    """The suite over the embedded log."""

    @pytest.fixture
    async def logs(self, tmp_path: Path) -> AsyncIterator[SqliteLogs]:
        async with SqliteLog(tmp_path / "log.db", partitions=4, clock=SystemClock()) as log:
            yield SqliteLogs(log)
