"""A real Kafka in the foreground: `python -m deploy.kafka.run --brokers 1`. SIGTERM or ^C ends it."""

import argparse
import asyncio
import contextlib
import fcntl
import signal
import sys
from pathlib import Path

from deploy.kafka.cluster import Cluster, prepared
from deploy.kafka.jars import Unusable, class_path

WATCH_S = 0.5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.kafka.run", description=__doc__)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument(
        "--dir", type=Path, help="where the data is kept (default: a temporary directory, removed)"
    )
    parser.add_argument("--port", type=int, default=9092, help="of the first broker; 0 picks free ones")
    parser.add_argument("--quick", action="store_true", help="start faster and run slower")
    parser.add_argument("--heap", type=int, default=0, metavar="MB", help="of each broker")
    parser.add_argument("--prepare", action="store_true", help="only fetch and prepare what a start needs")
    parser.add_argument(
        "--while-locked",
        type=Path,
        metavar="FILE",
        help="end when no process holds a shared flock on FILE any more; write the bootstrap line into it",
    )
    return parser.parse_args()


async def unwanted(path: Path) -> None:
    """Return, with `path` emptied, once nobody holds a shared lock on it."""
    with path.open("r+") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(WATCH_S)
                continue
            handle.truncate(0)
            return


async def prepare() -> int:
    """Fetch the jars and make the archive of classes; a start after that takes seconds."""
    try:
        await prepared(await asyncio.to_thread(class_path))
    except Unusable as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    return 0


async def main(args: argparse.Namespace) -> int:
    if args.prepare:
        return await prepare()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    cluster = Cluster(args.brokers, args.dir, args.port, args.heap, quick=args.quick)
    try:
        starting = asyncio.ensure_future(cluster.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return 0
        starting.result()
        line = ",".join(cluster.bootstrap)
        if args.while_locked:
            args.while_locked.write_text(line, "ascii")
        print(f"bootstrap {line}", flush=True)
        if args.while_locked:
            left = asyncio.ensure_future(unwanted(args.while_locked))
            await asyncio.wait({stopping, left}, return_when=asyncio.FIRST_COMPLETED)
        while not stop.is_set() and not args.while_locked:
            if not all(cluster.running):
                print(f"broker {cluster.running.index(False)} ended by itself", file=sys.stderr)
                return 1
            await asyncio.wait({stopping}, timeout=WATCH_S)
    except Unusable as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    finally:
        cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
