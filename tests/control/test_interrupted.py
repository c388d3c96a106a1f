"""Ctrl-C at any point of an import: whatever it was about, it ends at once, and as interrupted."""

import asyncio
import json
import sys
from pathlib import Path

from tests.control.test_cli_recipients import ANN, EVE, office
from tests.helpers.patience import PATIENCE_S

EVERY = 60  # lines of Python, of about 9000 in the first answer of verify and the wait for the next

# Interrupts itself: before the first line, then, in a run of its own each, before the next of every so many.
_INTERRUPTED = """
import asyncio, json, signal, sys, time
from pathlib import Path
from types import FrameType
from services.control import cli_recipients
from services.control.terminal import configured

every, last = int(sys.argv[2]), int(sys.argv[3])
config, keys = configured(Path(sys.argv[1])), dict(pair.split("=") for pair in sys.argv[4:])
lines = at = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script that runs the tests with `&` ignores it

def trace(frame, event, _):
    global lines, at
    lines += event == "line"
    if lines < wanted:
        return trace
    sys.settrace(None)
    while frame is not None:
        frame.f_trace, frame = None, frame.f_back
    at = time.monotonic()
    signal.raise_signal(signal.SIGINT)

async def interrupted():
    sys.settrace(trace)
    await cli_recipients._import(config, "office.example", keys, wait=True)

for wanted in range(1, last, every):
    lines, how = 0, "ended"
    try:
        asyncio.run(interrupted())
    except KeyboardInterrupt:
        how = "interrupted"
    print(json.dumps([wanted, how, time.monotonic() - at]), flush=True)
"""


async def test_at_any_point(tmp_path: Path) -> None:
    """Nothing below swallows it: neither while it connects, nor in a request, nor while it waits."""
    async with office(tmp_path, ANN) as (primary, running):
        primary.say("RCPT", "450 4.2.0 greylisted", to=EVE)  # so that an import never ends by itself
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _INTERRUPTED, str(running.config), str(EVERY), "9000",
            f"{ANN}={ANN}", f"{EVE}={EVE}",
            stdout=asyncio.subprocess.PIPE, env=running.environment,
        )  # fmt: skip
        try:
            out, _ = await asyncio.wait_for(process.communicate(), 2 * PATIENCE_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        runs = [json.loads(line) for line in out.splitlines()]
        assert len(runs) == 9000 // EVERY
        assert [run for run in runs if run[1] != "interrupted" or run[2] > 1.0] == []
        assert process.returncode == 0
