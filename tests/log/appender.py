"""A process for the tests to kill: appends to the embedded log without end, and prints what was acknowledged.

Usage: python -m tests.log.appender PATH WRITERS [LARGEST_FILE]. Each line: topic, partition, offset, key.
`LARGEST_FILE`: octets after which the system refuses to let a file grow (an I/O error, not a full disk).
"""

import asyncio
import resource
import signal
import sys
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from libs.log.sqlite import SqliteLog
from libs.runtime.clock import SystemClock


def value(key: bytes) -> bytes:
    """What every record with this key holds: 64 to 12,864 octets."""
    digest = sha256(key).hexdigest().encode()
    return digest * (1 + digest[0] % 3 * 100)


async def main(path: Path, writers: int) -> None:
    async with SqliteLog(path, partitions=4, clock=SystemClock(), reserve=(0, 0)) as log:

        async def write(topic: str, partition: int) -> None:
            while True:
                key = uuid4().hex.encode()
                stored = await log.append(topic, partition, key, value(key), within=30)
                sys.stdout.write(f"{topic} {partition} {stored.offset} {key.decode()}\n")
                sys.stdout.flush()

        await asyncio.gather(
            *(write("content" if turn % 2 else "queue", turn % 4) for turn in range(writers))
        )


if __name__ == "__main__":
    if len(sys.argv) > 3:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
