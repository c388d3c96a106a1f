"""The log that the configuration names, opened, and the installation record in it (rule 7).

The record is read by every process at start and written once: here, when the embedded log has no record at
all yet, or by `backupmx topics apply --new`. A process that finds it missing never writes it.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import structlog

from libs.log.contract import BEGIN, Claim, Log, LogError, Record, Unavailable
from libs.log.kafka import KafkaLog
from libs.log.sqlite import InUse, SqliteLog
from libs.mail.codec import decode, encode
from libs.mail.records import Installation
from libs.runtime.clock import Clock
from libs.runtime.config import Config
from libs.runtime.run import CannotStart
from libs.topics import DOMAINS, INSTALLATION_KEY, PARTITIONS

LOG_FILE = "log.sqlite"
PATIENCE_S = 10.0  # a log line that often while the log cannot be reached
WRITE_S = 30.0

T = TypeVar("T")


@asynccontextmanager
async def open_log(config: Config, clock: Clock, called: str) -> AsyncIterator[tuple[Log, int]]:
    """The log and the number of its partitions. Raises CannotStart."""
    if config.log.kind == "sqlite":
        async with open_sqlite(config, clock) as found:
            yield found
    else:
        async with _open_kafka(config, clock, called) as found:
            yield found


@asynccontextmanager
async def open_sqlite(config: Config, clock: Clock) -> AsyncIterator[tuple[Log, int]]:
    """The embedded log; a file without any record gets its installation record first of all."""
    path = config.state_directory / LOG_FILE
    log = SqliteLog(path, partitions=PARTITIONS, clock=clock)
    try:
        config.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await log.start()
    except InUse as error:
        raise CannotStart(f"{path}: another process of backupmx has it") from error
    except LogError as error:
        raise CannotStart(str(error)) from error
    except OSError as error:
        raise CannotStart(f"{path}: {error}") from error
    try:
        if log.created:
            new = Installation(config.installation.id, log.partitions, 0)
            await write_installation(log, new)
        yield log, log.partitions
    finally:
        await log.close()


@asynccontextmanager
async def _open_kafka(config: Config, clock: Clock, called: str) -> AsyncIterator[tuple[Log, int]]:
    """The log over Kafka, once it can be reached and the installation record has been looked for."""

    def log(partitions: int) -> KafkaLog:
        at = config.log
        return KafkaLog(
            at.bootstrap,
            partitions=partitions,
            replication=at.replication,
            clock=clock,
            prefix=at.prefix,
            name=called,
        )

    record = await _patiently(read_installation(log(PARTITIONS)))
    if record is None:
        structlog.get_logger().error(
            "there is no installation record: everything is answered 451 until `topics apply --new`"
        )
    found = log(PARTITIONS if record is None else record.partitions)
    while not await _started(found):
        _waiting()
    try:
        yield found, PARTITIONS if record is None else record.partitions
    finally:
        await found.close()


async def _started(log: KafkaLog) -> bool:
    try:
        await log.start()
    except Unavailable:
        return False
    return True


async def _patiently(reading: Coroutine[None, None, T]) -> T:
    """The result, however long it takes, and a log line now and then."""
    task = asyncio.ensure_future(reading)
    try:
        while not (await asyncio.wait({task}, timeout=PATIENCE_S))[0]:
            _waiting()
        return task.result()
    finally:
        task.cancel()


def _waiting() -> None:
    structlog.get_logger().warning("the log cannot be reached: trying again")


async def partitions_agree(log: Log, partitions: int) -> None:
    """Returns once there is an installation record with this number of partitions.

    Raises CannotStart when there is one with another: written after this process had started without.
    """
    async with aclosing(log.follow(DOMAINS.name, {0: BEGIN})) as batches:
        async for batch in batches:
            record = newest_installation(batch.records)
            if record is not None and record.partitions != partitions:
                raise CannotStart(f"the installation has {record.partitions} partitions, not {partitions}")
            if record is not None:
                return


async def read_installation(log: Log) -> Installation | None:
    """The record at the end of partition 0 of `domains`, None where there is none.

    Waits while the log is away. Raises Undecodable.
    """
    found: Installation | None = None
    async with aclosing(log.follow(DOMAINS.name, {0: BEGIN})) as batches:
        async for batch in batches:
            found = newest_installation(batch.records) or found
            if batch.position >= batch.end:
                break
    return found


def newest_installation(records: Sequence[Record]) -> Installation | None:
    """The last installation record among `records`. Raises Undecodable."""
    values = [record.value for record in records if record.key == INSTALLATION_KEY and record.value]
    return decode(values[-1], Installation) if values else None


async def write_installation(log: Log, record: Installation, claim: Claim | None = None) -> None:
    """Only for a log that was made just now, or by the owner of partition 0. Raises LogError."""
    await log.append(DOMAINS.name, 0, INSTALLATION_KEY, encode(record), within=WRITE_S, claim=claim)
