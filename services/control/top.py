"""What `top` shows: the relay domains in which something happens first, and a sum above them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]

# The key that is pressed -> what is sorted by, and how: the largest first, names from a to z.
SORTS = {
    "w": ("waiting", lambda row: (-row["waiting"], row["domain"])),
    "t": ("taken", lambda row: (-row["taken"], row["domain"])),
    "o": ("oldest", lambda row: (row["oldest"] or 9e99, row["domain"])),
    "p": ("primary", lambda row: (row["primary"] == "up", row["domain"])),
    "d": ("domain", lambda row: (row["domain"],)),
}
KEYS = "sort: [w]aiting [t]aken [o]ldest [p]rimary [d]omain   [q]uit"
_STYLES = {"up": "green", "down": "red", "deferring": "yellow", "refusing": "red bold"}
_AROUND = 5  # lines that are no domains: the sum, the header of the table and its rule, the keys


def screen(rows: Sequence[Row], sort: str, height: int, now: float) -> RenderableType:
    """`sort`: a key of SORTS; `height`: lines there are; `now`: wall seconds."""
    shown = sorted(rows, key=SORTS[sort][1])[: max(1, height - _AROUND)]
    table = Table(box=None, expand=True, pad_edge=False)
    table.add_column("domain", ratio=1, no_wrap=True, overflow="ellipsis")
    for name in ("state", "primary", "since", "waiting", "oldest", "in/min", "out/min"):
        right = name in ("waiting", "in/min", "out/min")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in shown:
        table.add_row(
            row["domain"],
            row["state"],
            Text(row["primary"], _STYLES.get(row["primary"], "")),
            _ago(row["primary_since"], now),
            str(row["waiting"]),
            _ago(row["oldest"], now),
            str(row["taken"]),
            str(row["handed_over"]),
        )
    left = len(rows) - len(shown)
    more = f"   {left} more" if left else ""
    return Group(Text(summary(rows)), Text(), table, Text(f"{KEYS}{more}", "dim"))


def summary(rows: Sequence[Row]) -> str:
    """One line over all domains."""
    away = sum(row["primary"] not in ("up", "unknown") for row in rows)
    waiting, taken, handed = (sum(row[name] for row in rows) for name in ("waiting", "taken", "handed_over"))
    domains = "1 domain" if len(rows) == 1 else f"{len(rows)} domains"
    return f"{domains}, {away} away; {waiting} mails wait; in a minute {taken} in and {handed} out"


def _ago(at: float, now: float) -> str:
    """How long ago: 5s, 12m, 3h, 2d."""
    if not at:
        return "-"
    seconds = int(timedelta(seconds=max(0.0, now - at)).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
