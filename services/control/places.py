"""Where the newest record of each mail is: a table of SQLite in memory, some 70 octets a mail.

As objects of Python a million of them took 270 octets each, and a page was found by looking at every one.
"""

import sqlite3
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from libs.mail.records import State
from services.control.queue import Cursor, Place

_STATES = tuple(State)
_VAULT = f"(state IS NULL OR state IN ({_STATES.index(State.PARKED)}, {_STATES.index(State.CONTENT_LOST)}))"
_TABLE = """
    CREATE TABLE places (
        key BLOB PRIMARY KEY, partition INTEGER, offset INTEGER, domain INTEGER, arrived REAL, state INTEGER,
        parked REAL
    ) WITHOUT ROWID
"""
_PLACE = "partition, offset, domain, arrived, state, parked"


class Places(MutableMapping[bytes, Place]):
    """By mail id. A domain's name is kept once, and for ever."""

    def __init__(self) -> None:
        # autocommit, and nothing to roll back: the log is what lasts
        self._rows = sqlite3.connect(":memory:", isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute(_TABLE)
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}

    def __getitem__(self, key: bytes) -> Place:
        row = self._rows.execute(f"SELECT {_PLACE} FROM places WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return self._place(row)

    def __setitem__(self, key: bytes, place: Place) -> None:
        number = self._numbers.get(place.domain)
        if number is None:
            number = self._numbers[place.domain] = len(self._names)
            self._names.append(place.domain)
        state = None if place.state is None else _STATES.index(place.state)
        row = (key, place.partition, place.offset, number, place.arrived, state, place.parked)
        self._rows.execute("REPLACE INTO places VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def __delitem__(self, key: bytes) -> None:
        if not self._rows.execute("DELETE FROM places WHERE key = ?", (key,)).rowcount:
            raise KeyError(key)

    def __iter__(self) -> Iterator[bytes]:
        for (key,) in self._rows.execute("SELECT key FROM places"):
            yield key

    def __len__(self) -> int:
        return self._count("TRUE", None)

    def page(
        self, domain: str | None, after: Cursor | None, limit: int, *, vault: bool
    ) -> list[tuple[bytes, Place]]:
        """Up to `limit` mails, oldest first, those after `after`: of the vault, or all that can be read."""
        arrived, id_ = after or (-1.0, "")
        where = f"{_kept(vault=vault)} AND (arrived, key) > (?, ?)"
        where, values = self._where(where, domain, arrived, id_.encode())
        rows = self._rows.execute(
            f"SELECT key, {_PLACE} FROM places WHERE {where} ORDER BY arrived, key LIMIT ?", (*values, limit)
        )
        return [(row[0], self._place(row[1:])) for row in rows]

    def total(self, domain: str | None, *, vault: bool) -> int:
        """How many mails all pages have together."""
        return self._count(_kept(vault=vault), domain)

    def waiting(self, domain: str) -> int:
        """How many mails of a domain there are, in whatever state."""
        return self._count("TRUE", domain)

    def summary(self) -> Mapping[str, int]:
        """The same of every domain that has any."""
        rows = self._rows.execute("SELECT domain, count(*) FROM places GROUP BY domain")
        return {self._names[number]: count for number, count in rows}

    def parked(self) -> Mapping[str, float]:
        """When the newest parked mail of each domain was parked."""
        rows = self._rows.execute("SELECT domain, max(parked) FROM places WHERE parked > 0 GROUP BY domain")
        return {self._names[number]: at for number, at in rows}

    # --- inside ---

    def _count(self, where: str, domain: str | None) -> int:
        where, values = self._where(where, domain)
        count: int = self._rows.execute(f"SELECT count(*) FROM places WHERE {where}", values).fetchone()[0]
        return count

    def _where(self, where: str, domain: str | None, *values: Any) -> tuple[str, tuple[Any, ...]]:
        if domain is None:
            return where, values
        return f"{where} AND domain = ?", (*values, self._numbers.get(domain, -1))

    def _place(self, row: tuple[Any, ...]) -> Place:
        partition, offset, number, arrived, state, parked = row
        known = None if state is None else _STATES[state]
        return Place(partition, offset, self._names[number], arrived, known, parked)


def _kept(*, vault: bool) -> str:
    return _VAULT if vault else "state IS NOT NULL"
