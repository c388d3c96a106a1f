"""MTA-STS policies in a file of the state directory: what was promised holds over a restart, too.

Several processes may share the file. Each reads it again before it writes: at worst an entry of another is
lost, and its policy is fetched anew.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from libs.smtp.sts_policy import Policy

NAME = "mta-sts.json"
_ROOM = 10_000  # domains; those that end first go first

log = structlog.get_logger()


class Entry(msgspec.Struct, frozen=True):
    """`ends`, `stale`: wall seconds; the others as in sts.py."""

    id: str
    policy: Policy
    ends: float
    stale: float


def load(path: Path, wall: float) -> dict[str, Entry]:
    """By domain, without those that have ended; nothing where the file is not there or cannot be read."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, Entry])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("kept MTA-STS policies cannot be read", path=str(path), error=str(error))
        return {}
    return {domain: entry for domain, entry in found.items() if entry.ends > wall}


def save(path: Path, entries: Mapping[str, Entry], wall: float) -> None:
    """Put `entries` into the file. Never raises: without it the policies hold as long as the process."""
    merged = {**load(path, wall), **entries}
    newest = sorted(merged.items(), key=lambda item: item[1].ends)[-_ROOM:]
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{NAME}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(dict(newest)))
            os.replace(name, path)  # noqa: PTH105 one step: a reader sees the old file or the new one
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        log.warning("MTA-STS policies cannot be kept", path=str(path), error=str(error))
