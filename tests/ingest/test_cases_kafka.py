"""Every case file over a socket with the running service on a real Kafka.

One log for all of them: making its topics costs more than a dialogue. Each case has its own ingest, and what
it wrote into the tables is taken back.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from libs.log.contract import Log
from tests.helpers.kafka import log_on
from tests.helpers.patience import PATIENCE_S
from tests.ingest.cases import Case, cases
from tests.ingest.house import PARTITIONS
from tests.ingest.play import house_of, play

PATHS = cases()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def log(broker: tuple[str, ...]) -> AsyncIterator[Log]:
    async with log_on(broker, partitions=PARTITIONS) as found:
        # The end of an empty topic is seen half a second later.
        for topic in ("domains", "primaries", "recipients"):
            await found.append(topic, 0, b"nobody", None, within=PATIENCE_S)
        yield found


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
async def test_case_on_kafka(path: Path, tmp_path: Path, log: Log, authority: trustme.CA) -> None:
    """The case holds for the running service on Kafka."""
    case = Case(path)
    async with house_of(case, tmp_path, authority, log) as house:
        try:
            await play(case, house)
        finally:
            await house.stop()
            await house.forget()
