"""What is in a maildir."""

from pathlib import Path


def mails(folder: Path) -> list[bytes]:
    """The mails that nobody has read yet, oldest first; none where there is no such maildir."""
    new = folder / "new"
    if not new.is_dir():
        return []
    return [path.read_bytes() for path in sorted(new.iterdir(), key=lambda path: path.stat().st_mtime_ns)]
