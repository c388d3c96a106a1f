"""One replica of `recipients` in a process of its own: `python -m bench.replica ingest FILE`.

Reads the embedded log at FILE as the service does at its start and prints a JSON object: `bytes` that the
tables take, `keys` in them, `ready_s` since the process began to load its modules.
"""

import argparse
import asyncio
import gc
import io
import json
import os
import time

BEGAN = time.monotonic()

from pathlib import Path  # noqa: E402 what is loaded is part of the time

from bench.cpu import resident  # noqa: E402
from libs.log.sqlite import SqliteLog  # noqa: E402
from libs.runtime.clock import SystemClock  # noqa: E402
from libs.runtime.config import Config, HostPart, InstallationPart  # noqa: E402
from libs.runtime.deps import Deps  # noqa: E402
from libs.runtime.dns import Dns  # noqa: E402
from libs.runtime.events import Events  # noqa: E402
from libs.runtime.metrics import Metrics  # noqa: E402
from libs.topics import PARTITIONS  # noqa: E402
from services.ingest.known import Known as Ingest  # noqa: E402
from services.verify.known import Known as Verify  # noqa: E402


async def measure(service: str, path: Path) -> dict[str, float]:
    """See above."""
    host = "mx1.backup.example"
    installation = InstallationPart(id="bench-0001", hosts=(host,), operators="ops@ops.example")
    config = Config(installation=installation, host=HostPart(name=host), state_directory=path.parent)
    clock, metrics = SystemClock(), Metrics()
    async with SqliteLog(path, partitions=PARTITIONS, clock=clock) as log:
        events = Events(
            log, clock, metrics, service=service, host=host, partitions=PARTITIONS, out=io.StringIO()
        )
        deps = Deps(config, log, clock, Dns((), clock, 1.0), events, metrics, PARTITIONS)
        known = Ingest(deps) if service == "ingest" else Verify(deps)
        gc.collect()
        empty = resident(os.getpid())
        running = [asyncio.create_task(table.run()) for table in known.tables]
        await known.caught_up()
        ready_s = time.monotonic() - BEGAN
        gc.collect()
        grown = resident(os.getpid()) - empty
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        return {"bytes": grown, "keys": len(known.recipients.values), "ready_s": ready_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", choices=("ingest", "verify"))
    parser.add_argument("path", type=Path)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.service, options.path))), flush=True)


if __name__ == "__main__":
    main()
