"""The recipients of a domain as a person sees them: changes of `recipients`, folded."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from libs.log.contract import Record
from libs.mail.codec import decode_recipient
from libs.mail.knowledge import Allowed, Forgotten, Imported, RecipientStatus, RecipientTry, Status, Told
from services.control.domains import Malformed, mailbox_of

Change = dict[str, Any]  # key: of the mailbox; status, or tried: what is known now, None for nothing
Row = dict[str, Any]

VERBS: dict[str, type[Told]] = {"import": Imported, "allow": Allowed, "forget": Forgotten}
TRY = "try:"


def told(verb: str, address: str, domain: str, by: str, era: int = 0) -> tuple[str, Told]:
    """Key and record that say `verb` of an address of `domain`, whose `era` it is. Raises Malformed."""
    if verb not in VERBS:
        raise Malformed(f"{verb!r} is nothing that can be said of a recipient; there are {', '.join(VERBS)}")
    found = mailbox_of(domain, address)
    return found.key, VERBS[verb](str(found), by, era)


def change(record: Record, domain: str, era: int) -> Change | None:
    """What a record of `recipients` changes for `domain` of this `era`; None: nothing. Raises Undecodable."""
    name = record.key.decode("utf-8", "replace")
    key = name.removeprefix(TRY)
    local, _, of = key.rpartition("@")
    if of != domain or not local:
        return None
    found = None if record.value is None else decode_recipient(record.value)
    if found is not None and found.era != era:
        return None
    if key != name:
        return {"key": key, "tried": _tried(found) if isinstance(found, RecipientTry) else None}
    return {"key": key, "status": _status(found) if isinstance(found, RecipientStatus) else None}


def _status(found: RecipientStatus) -> Row:
    return {
        "address": found.mailbox,
        "status": found.status.value,
        "since": found.since,
        "confirmed": found.confirmed,
        "source": found.source,
    }


def _tried(found: RecipientTry) -> Row:
    return {
        "address": found.mailbox,
        "tried": found.last_tried,
        "outcome": found.last_outcome,
        "doubted_since": found.against_since,
        "imported": found.imported,
    }


class Roll:
    """What is known of the recipients of a domain, as far as it was read."""

    def __init__(self) -> None:
        self._status: dict[str, Row | None] = {}
        self._tried: dict[str, Row] = {}

    def fold(self, change: Change) -> None:
        key = change["key"]
        if "status" in change:
            self._status[key] = change["status"]
        elif change["tried"] is None:
            self._tried.pop(key, None)
        else:
            self._tried[key] = change["tried"]

    def spoken_of(self, key: str) -> bool:
        """Was anything read of it, be it that it was forgotten?"""
        return key in self._status or key in self._tried

    def settled(self, key: str) -> bool:
        """Was a status read of it, or that it was forgotten?"""
        return key in self._status

    def answered(self, key: str) -> bool:
        """Is it asked about no more?"""
        tried = self._tried.get(key)
        return not tried["imported"] if tried is not None else key in self._status

    def row(self, key: str) -> Row:
        """`status` is unknown for one that was asked about in vain, or not yet; times are wall seconds, 0 for
        never; `imported` 0: no question waits."""
        nothing: Row = {"tried": 0.0, "outcome": "", "doubted_since": 0.0, "imported": 0.0}
        unknown: Row = {"address": key, "status": "unknown", "since": 0.0, "confirmed": 0.0, "source": ""}
        tried = self._tried.get(key) or nothing
        return unknown | nothing | tried | (self._status.get(key) or {})

    def rows(self) -> list[Row]:
        """Of all of whom something is known, by address."""
        known = {key for key, status in self._status.items() if status is not None}
        return [self.row(key) for key in sorted(known | self._tried.keys())]

    def known(self) -> int:
        """How many have a status."""
        return sum(status is not None for status in self._status.values())


class Few(NamedTuple):
    """Of the recipients of a domain that are known to exist: how many, and one of them, "" for none."""

    number: int = 0
    someone: str = ""


class Census:
    """A `Few` of each domain, from the records of a partition of `recipients`. `eras`: of each domain."""

    def __init__(self, eras: Mapping[str, int]) -> None:
        self._eras = eras
        self._there: dict[str, dict[bytes, str]] = {}  # domain -> key -> mailbox

    def fold(self, record: Record) -> None:
        """Raises Undecodable."""
        if record.key.startswith((b"@", TRY.encode())):
            return
        domain = record.key.rpartition(b"@")[2].decode("utf-8", "replace")
        there = self._there.setdefault(domain, {})
        there.pop(record.key, None)
        found = None if record.value is None else decode_recipient(record.value)
        if (
            isinstance(found, RecipientStatus)
            and found.status is Status.DELIVERABLE
            and found.era == self._eras.get(domain)
        ):
            there[record.key] = found.mailbox

    def few(self) -> dict[str, Few]:
        return {name: Few(len(there), there[min(there)]) for name, there in self._there.items() if there}


def deliverable(rows: Iterable[Row]) -> list[str]:
    return [row["address"] for row in rows if row["status"] == Status.DELIVERABLE.value]


def summary(rows: Iterable[Row]) -> str:
    """`2 deliverable, 1 undeliverable, 1 unknown (catch_all)`."""
    counts: dict[str, int] = {}
    reasons: dict[str, None] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
        if row["status"] == "unknown" and row["outcome"]:
            reasons[row["outcome"]] = None
    words = [
        f"{counts[word]} {word}" for word in ("deliverable", "undeliverable", "unknown") if word in counts
    ]
    return ", ".join(words) + (f" ({', '.join(reasons)})" if reasons else "")
