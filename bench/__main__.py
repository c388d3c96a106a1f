"""`python -m bench`: measure this machine; prints lines `name value unit`, writes bench/results.json.

CPU figures are user and system time of our processes a mail; they change less with what else the machine does
than rates and latencies do. `--only recipients|cache|sqlite|kafka|restore|auth` measures a part and writes
nothing.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench.accept import accept
from bench.auth import cpu, latency
from bench.cache import cache
from bench.figures import Figures
from bench.house import KNOWN, house
from bench.idle import idle
from bench.machine import facts
from bench.outage import outage_ends
from bench.recipients import recipients
from bench.restore import restore
from deploy.kafka.cluster import Cluster, prepared
from deploy.kafka.jars import class_path

RESULTS = Path(__file__).parent / "results.json"
PARTS = ("recipients", "cache", "sqlite", "kafka", "restore", "auth")


async def asked(folder: Path, figures: Figures, cluster: Cluster | None = None) -> None:
    """What a RCPT waits for, over one log."""
    async with house(folder, cluster) as built:
        await recipients(built, figures)


async def path(folder: Path, figures: Figures, cluster: Cluster | None = None) -> None:
    """One mail's way, over one log."""
    async with house(folder, cluster) as built:
        await built.load(mode="rcpt", count=1, connections=1, recipient=KNOWN)
        await idle(built, figures)
        waiting = await accept(built, figures)
        await outage_ends(built, figures, waiting)


async def measure(parts: tuple[str, ...], figures: Figures, folder: Path) -> None:
    if not {"recipients", "kafka", "auth"}.isdisjoint(parts):
        await prepared(await asyncio.to_thread(class_path))  # fetched and unpacked on first use only
    if "recipients" in parts:
        await asked(folder / "asked-sqlite", figures)
        async with Cluster(3) as cluster:
            await asked(folder / "asked-kafka", figures, cluster)
    if "cache" in parts:
        await cache(folder / "cache", figures)
    if "sqlite" in parts:
        await path(folder / "sqlite", figures)
    if "kafka" in parts:
        async with Cluster(1) as cluster:
            await path(folder / "kafka", figures, cluster)
    if "restore" in parts:
        await restore(folder / "restore", figures)
    if "auth" in parts:
        await cpu(figures)
        await latency(folder / "auth-sqlite", figures)
        async with Cluster(1) as cluster:
            await latency(folder / "auth-kafka", figures, cluster)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    figures = Figures(facts())
    with tempfile.TemporaryDirectory(prefix="backupmx-bench-") as folder:
        asyncio.run(measure((only,) if only else PARTS, figures, Path(folder)))
    if not only:
        figures.write(RESULTS)
    for sentence in figures.missed():
        print(sentence, file=sys.stderr)


if __name__ == "__main__":
    main()
