"""The file that chunks go to when their memory is spent: unlinked, so nothing is left after a crash."""

import os
import tempfile
from collections.abc import Iterable
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from services.verify.assemble import Extent

LIMIT = 8 * 2**30  # octets

_log = structlog.get_logger()
_SHORTER = "the spill file is shorter than it was"


class Elsewhere(NamedTuple):
    """Octets in the spill file, for another process of ours: it is given the open file."""

    descriptor: Any  # what DupFd makes
    extents: tuple[Extent, ...]

    def read(self) -> bytearray:
        """All of them, in memory once; once, over there. Raises OSError."""
        file = self.descriptor.detach()
        octets = bytearray(sum(extent.length for extent in self.extents))
        at = 0
        try:
            for extent in self.extents:
                place = memoryview(octets)[at : at + extent.length]
                if os.preadv(file, [place], extent.start) != extent.length:
                    raise OSError(_SHORTER)
                at += extent.length
        finally:
            os.close(file)
        return octets


class Spill:
    """One file, made when first needed in `directory`; emptied whenever nothing in it is needed."""

    def __init__(self, directory: Path | None, limit: int = LIMIT) -> None:
        self._directory, self._limit = directory, limit
        self._file = -1
        self._end = self._live = 0

    def write(self, octets: bytes) -> Extent | None:
        """Where the octets are; None when there is no room for them."""
        if self._end + len(octets) > self._limit:
            return None
        try:
            if self._file < 0:
                self._file = self._made()
            written = 0
            while written < len(octets):
                written += os.pwrite(self._file, octets[written:], self._end + written)
        except OSError as error:
            _log.warning("chunks do not fit in memory and cannot be spilled", why=str(error))
            return None
        extent = Extent(self._end, len(octets))
        self._end += len(octets)
        self._live += len(octets)
        return extent

    def must_write(self, octets: bytes) -> Extent:
        """Raises OSError where write() says None."""
        extent = self.write(octets)
        if extent is None:
            raise OSError("the spill file has no room")
        return extent

    def read(self, extent: Extent) -> bytes:
        """Raises OSError."""
        return _read(self._file, extent)

    def elsewhere(self, extents: Iterable[Extent]) -> Elsewhere:
        """To be read in another process, before they are freed here."""
        return Elsewhere(DupFd(self._file), tuple(extents))

    def free(self, extent: Extent) -> None:
        """The octets are not needed any more."""
        self._live -= extent.length
        if self._live == 0 and self._file >= 0:
            os.ftruncate(self._file, 0)
            self._end = 0

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _made(self) -> int:
        file, name = tempfile.mkstemp(prefix="verify-", dir=self._directory)
        os.unlink(name)  # noqa: PTH108 nothing else of pathlib is used here
        return file


def _read(file: int, extent: Extent) -> bytes:
    octets = os.pread(file, extent.length, extent.start)
    if len(octets) != extent.length:
        raise OSError(_SHORTER)
    return octets
