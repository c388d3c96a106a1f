"""verify over a real Kafka: two processes' worth of it, each with its own connection."""

from pathlib import Path

from libs.runtime.clock import SystemClock
from tests.helpers.kafka import broker, fresh, log_on  # noqa: F401 fixtures
from tests.helpers.patience import until
from tests.verify.scene import PARTITIONS, SIGNED, scene_on, trace


async def test_verdicts_over_kafka_and_a_restart(tmp_path: Path, broker: tuple[str, ...]) -> None:  # noqa: F811
    """Messages get their verdicts; an open assembly is whole after a restart; what was read behind it is
    answered again, nothing else."""
    async with log_on(broker, partitions=PARTITIONS) as log, scene_on(log, tmp_path, SystemClock()) as here:
        await here.start()
        for number in range(20):
            await here.send(f"id{number}", p=number % PARTITIONS)
        await until(lambda: len(here.verdicts) == 20)
        await here.chunk("open", 0, SIGNED[:100])
        await here.send("mark")
        await here.verdict("mark")
        await here.stop()
        await here.start()
        await here.chunk("open", 1, SIGNED[100:], trace(2))
        assert (await here.verdict("open")).results["dkim"] == "pass"
        assert {id_ for id_, each in here.verdicts.items() if len(each) > 1} <= {"mark"}


async def test_two_members_share_and_one_takes_over(tmp_path: Path, broker: tuple[str, ...]) -> None:  # noqa: F811
    """Partitions are shared by the members of group `verify`; the one that stays answers for all of them."""
    prefix = fresh()
    async with (
        log_on(broker, prefix=prefix, partitions=PARTITIONS) as log,
        log_on(broker, prefix=prefix, partitions=PARTITIONS) as other,
        scene_on(log, tmp_path, SystemClock()) as here,
    ):
        await here.start()
        await here.start(log=other)
        for number in range(8):
            await here.send(f"both{number}", p=number % PARTITIONS)
        await until(lambda: len(here.verdicts) == 8)
        await here.stop()
        for number in range(8):
            await here.send(f"one{number}", p=number % PARTITIONS)
        await until(lambda: len(here.verdicts) == 16)
