"""Where the newest record of each mail is: a table of SQLite in memory, some 70 octets a mail.

As objects of Python a million of them took 270 octets each, and a page was found by looking at every one.
"""

import sqlite3
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from libs.mail.records import State
from services.control.queue import Cursor, Place

_AT_ONCE = 500
_STATES = tuple(State)
_NUMBERS = {state: number for number, state in enumerate(_STATES)}
_VAULT = f"(state IS NULL OR state IN ({_STATES.index(State.PARKED)}, {_STATES.index(State.CONTENT_LOST)}))"
_TABLE = """
    CREATE TABLE places (
        key BLOB PRIMARY KEY, partition INTEGER, offset INTEGER, domain INTEGER, arrived REAL, state INTEGER,
        parked REAL, ours INTEGER
    ) WITHOUT ROWID
"""
_ROW = "key, partition, offset, domain, arrived, state, parked, ours"
_Row = tuple[Any, ...]


class Places(MutableMapping[bytes, Place]):
    """By mail id. A domain's name is kept once, and for ever."""

    def __init__(self) -> None:
        # no journal, for nothing is rolled back: the log is what lasts
        self._rows = sqlite3.connect(":memory:", isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute("PRAGMA page_size = 8192")
        self._rows.execute(_TABLE)
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._new: dict[bytes, _Row] = {}  # not in the table yet: many rows are cheaper at once

    def __getitem__(self, key: bytes) -> Place:
        row = self._new.get(key)
        if row is None:
            row = self._rows.execute(f"SELECT {_ROW} FROM places WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return self._place(row)

    def __setitem__(self, key: bytes, place: Place) -> None:
        partition, offset, domain, arrived, state, parked, ours = place
        number = self._numbers.get(domain)
        if number is None:
            number = self._numbers[domain] = len(self._names)
            self._names.append(domain)
        known = None if state is None else _NUMBERS[state]
        self._new[key] = (key, partition, offset, number, arrived, known, parked, ours)
        if len(self._new) >= _AT_ONCE:
            self._write()

    def __delitem__(self, key: bytes) -> None:
        new = self._new.pop(key, None)
        if not self._rows.execute("DELETE FROM places WHERE key = ?", (key,)).rowcount and new is None:
            raise KeyError(key)

    def __iter__(self) -> Iterator[bytes]:
        for (key,) in self._select("SELECT key FROM places"):
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
        rows = self._select(
            f"SELECT {_ROW} FROM places WHERE {where} ORDER BY arrived, key LIMIT ?", *values, limit
        )
        return [(row[0], self._place(row)) for row in rows]

    def total(self, domain: str | None, *, vault: bool) -> int:
        """How many mails all pages have together."""
        return self._count(_kept(vault=vault), domain)

    def waiting(self, domain: str, *, vault: bool = True) -> int:
        """How many mails of a domain there are that others sent; `vault`: those in the vault, too."""
        return self._count("NOT ours" if vault else f"NOT ours AND NOT {_VAULT}", domain)

    def unreadable(self, domain: str) -> list[str]:
        """The ids of what is known to be of a domain, and no version here can read."""
        where, values = self._where("state IS NULL", domain)
        rows = self._select(f"SELECT key FROM places WHERE {where}", *values)
        return [key.decode("utf-8", "replace") for (key,) in rows]

    def summary(self) -> Mapping[str, int]:
        """The same of every domain that has any, with those in the vault."""
        rows = self._select("SELECT domain, count(*) FROM places WHERE NOT ours GROUP BY domain")
        return {self._names[number]: count for number, count in rows}

    def parked(self) -> Mapping[str, float]:
        """When the newest parked mail of each domain was parked."""
        rows = self._select("SELECT domain, max(parked) FROM places WHERE parked > 0 GROUP BY domain")
        return {self._names[number]: at for number, at in rows}

    def parked_of(self, domain: str) -> int:
        """How many mails of a domain are parked."""
        return self._count("parked > 0", domain)

    # --- inside ---

    def _write(self) -> None:
        """What is new into the table."""
        if new := self._new:
            self._new = {}
            self._rows.execute("BEGIN")
            self._rows.executemany("REPLACE INTO places VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new.values())
            self._rows.execute("COMMIT")

    def _select(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._write()
        return self._rows.execute(statement, values)

    def _count(self, where: str, domain: str | None) -> int:
        where, values = self._where(where, domain)
        count: int = self._select(f"SELECT count(*) FROM places WHERE {where}", *values).fetchone()[0]
        return count

    def _where(self, where: str, domain: str | None, *values: Any) -> tuple[str, tuple[Any, ...]]:
        if domain is None:
            return where, values
        return f"{where} AND domain = ?", (*values, self._numbers.get(domain, -1))

    def _place(self, row: _Row) -> Place:
        _, partition, offset, number, arrived, state, parked, ours = row
        known = None if state is None else _STATES[state]
        return Place(partition, offset, self._names[number], arrived, known, parked, bool(ours))


def _kept(*, vault: bool) -> str:
    return _VAULT if vault else "state IS NOT NULL"
