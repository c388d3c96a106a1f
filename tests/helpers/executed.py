"""The command `backupmx` in processes that begin from nothing, as an operator's do: for what is shown or
measured. tests/helpers/forked.py starts the same at less cost."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

# Ends with the process that started it, however that one ends: nothing outlives a test. It hears Ctrl-C, as
# on a terminal: what a script runs with `&` ignores it, and so does all that it starts.
_LEASHED = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit("the test is gone")
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "backupmx"
{first}
from services.main import main
main()
"""


async def begin(
    words: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    *,
    out: BinaryIO | int | None = None,
    err: BinaryIO | int | None = None,
    first: str = "",
) -> asyncio.subprocess.Process:
    """As forked.begin."""
    command = [sys.executable, "-c", _LEASHED.replace("{first}", first), str(os.getpid()), *words]
    return await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE if out is None else out, stderr=PIPE if err is None else err,
        env=environment, cwd=cwd, start_new_session=True,
    )  # fmt: skip
