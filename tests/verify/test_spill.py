"""The spill file: octets come back as they went, nothing is left behind, and no room is an answer."""

from pathlib import Path

import pytest

from services.verify.spill import Spill


def test_octets_come_back(tmp_path: Path) -> None:
    """Each extent reads as it was written; the file has no name, so a crash leaves nothing."""
    spill = Spill(tmp_path)
    extents = [spill.write(bytes([number]) * 1000) for number in range(5)]
    assert [spill.read(extent) for extent in extents if extent] == [bytes([n]) * 1000 for n in range(5)]
    assert list(tmp_path.iterdir()) == []
    spill.close()


def test_the_file_is_emptied_when_nothing_is_needed(tmp_path: Path) -> None:
    """Its room is used again; until then the limit holds."""
    spill = Spill(tmp_path, limit=3000)
    first, second = spill.write(b"a" * 1500), spill.write(b"b" * 1500)
    assert first is not None
    assert second is not None
    assert spill.write(b"c") is None
    spill.free(first)
    assert spill.write(b"c") is None
    spill.free(second)
    third = spill.write(b"d" * 3000)
    assert third is not None
    assert spill.read(third) == b"d" * 3000
    spill.close()


def test_a_directory_that_cannot_be_written_is_no_room(tmp_path: Path) -> None:
    """A fault of the disk breaks one assembly, not the service."""
    assert Spill(tmp_path / "missing").write(b"a") is None


def test_reading_what_is_gone_is_an_error(tmp_path: Path) -> None:
    """An extent that was let go cannot be read as something else."""
    spill = Spill(tmp_path)
    extent = spill.write(b"abc")
    assert extent is not None
    spill.free(extent)
    with pytest.raises(OSError, match="shorter"):
        spill.read(extent)
    spill.close()
