"""The topics of an installation on Kafka, and its record, which is written once (rule 7)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.log import kafka_topics
from libs.log.contract import Unavailable
from libs.log.kafka import KafkaLog
from libs.log.open import read_installation, write_installation
from libs.mail.records import Installation
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.topics import PARTITIONS

READ_S = 30.0


class NotDone(Exception):  # noqa: N818
    """The message is one sentence for the person who asked."""


async def apply(config: Config, *, new: bool) -> list[str]:
    """Create what is missing and, when `new`, write the installation record. Returns what was done, a line
    each. Raises NotDone, LogError."""
    at = config.log
    created = await kafka_topics.apply(
        at.bootstrap, partitions=PARTITIONS, replication=at.replication, prefix=at.prefix
    )
    done = [f"topic {name} created" for name in created] or ["every topic is there"]
    async with _log(config) as log:
        record = await _read(log)
        if record is not None:
            if wrong := _difference(config, record):
                raise NotDone(wrong)
            return [*done, f"installation {record.id} is there, with {record.partitions} partitions"]
        if not new:
            raise NotDone(
                "the topics are there, but no installation record: if this is a new installation, and "
                "nothing was lost, use --new"
            )
        await write_installation(log, Installation(config.installation.id, PARTITIONS, 0))
        return [*done, f"installation {config.installation.id} written"]


async def check(config: Config) -> list[str]:
    """What differs, a sentence each. Raises LogError."""
    at = config.log
    differences = await kafka_topics.check(
        at.bootstrap, partitions=PARTITIONS, replication=at.replication, prefix=at.prefix
    )
    if any("is missing" in each for each in differences):
        return differences
    async with _log(config) as log:
        record = await _read(log)
    wrong = "there is no installation record" if record is None else _difference(config, record)
    return [*differences, f"{wrong[:1].upper()}{wrong[1:]}."] if wrong else differences


@asynccontextmanager
async def _log(config: Config) -> AsyncIterator[KafkaLog]:
    at = config.log
    log = KafkaLog(
        at.bootstrap,
        partitions=PARTITIONS,
        replication=at.replication,
        clock=SystemClock(),
        prefix=at.prefix,
        name="setup",
    )
    await log.start()
    try:
        yield log
    finally:
        await log.close()


async def _read(log: KafkaLog) -> Installation | None:
    try:
        async with asyncio.timeout(READ_S):
            return await read_installation(log)
    except TimeoutError as error:
        raise Unavailable(f"topic domains cannot be read within {READ_S:.0f} s") from error


def _difference(config: Config, record: Installation) -> str:
    """How the record is not ours; "" when it is."""
    if record.id == config.installation.id:
        return ""
    return f"these topics belong to installation {record.id}, not to {config.installation.id}"
