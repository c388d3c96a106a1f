"""The main job as a story with figures: `python -m demo --log sqlite|kafka`.

Ends non-zero if anything is not so."""

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from demo.story import HEAD, ZONE, Story
from deploy.kafka.cluster import Cluster, prepared
from deploy.kafka.jars import Unusable, class_path
from tests.helpers import executed
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

WITHIN_S = {False: 60.0, True: 120.0}  # over Kafka three brokers start, and one of them is killed


async def tell(kafka: bool) -> bool:
    """Everything is started here, in sight, and ended here. Returns whether all was as it should be."""
    if kafka:
        await prepared(await asyncio.to_thread(class_path))  # fetched and unpacked on first use only
    print(HEAD[kafka], flush=True)
    begun = time.monotonic()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backupmx-demo-")))
        cluster = await stack.enter_async_context(Cluster(3, quick=True)) if kafka else None
        zone = await stack.enter_async_context(Zone(ZONE))
        office = await stack.enter_async_context(
            Primary(known={"ann@office.example", "bob@office.example"}, address="127.0.0.2",
                    name="mail.office.example")
        )  # fmt: skip
        isp = await stack.enter_async_context(
            Primary(address="127.0.0.3", port=office.port, name="mail.isp.example")
        )
        backup = await stack.enter_async_context(
            Running(
                folder,
                dns=zone.servers,
                dial_port=office.port,
                kafka=cluster.bootstrap if cluster else (),
                replication=3,
                activation="dns",
                begin=executed.begin,
            )
        )
        story = Story(backup, office, isp, cluster, begun)
        try:
            await story.tell()
        except Exception:
            for name in backup.names:
                print(f"--- the last lines of {name}:\n{backup.tail(name)}", file=sys.stderr)
            raise
    took_s = time.monotonic() - begun
    most_s = WITHIN_S[kafka]
    story.check(f"the whole story took {took_s:.0f} s, and may take {most_s:.0f}", took_s <= most_s)
    return story.end()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--log", choices=("sqlite", "kafka"), default="sqlite")
    arguments = parser.parse_args()
    try:
        return 0 if asyncio.run(tell(arguments.log == "kafka")) else 1
    except Unusable as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
