"""The topics of an installation on Kafka, and its record, which is written once (rule 7)."""

from libs.log import kafka_topics
from libs.log.kafka import KafkaLog
from libs.log.open import read_installation, write_installation
from libs.mail.records import Installation
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.topics import PARTITIONS


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
        record = await read_installation(log)
        if record is not None:
            return [*done, _same(config, record)]
        if not new:
            raise NotDone(
                "the topics are there, but no installation record: if this is a new installation, and "
                "nothing was lost, use --new"
            )
        await write_installation(log, Installation(config.installation.id, PARTITIONS, 0))
        return [*done, f"installation {config.installation.id} written"]
    finally:
        await log.close()


async def check(config: Config) -> list[str]:
    """What differs, a sentence each. Raises LogError."""
    at = config.log
    return await kafka_topics.check(
        at.bootstrap, partitions=PARTITIONS, replication=at.replication, prefix=at.prefix
    )


def _same(config: Config, record: Installation) -> str:
    if record.id != config.installation.id:
        raise NotDone(f"these topics belong to installation {record.id}, not to {config.installation.id}")
    return f"installation {record.id} is there, with {record.partitions} partitions"
