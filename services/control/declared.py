"""Domains as files declare them, and what is to be done so that the register is as they say.

TOML has a table for each domain, CSV a line; a setting that is not there has its default.

    [domains."office.example"]                    domain,contact,lifetime_days
    contact = "owner@elsewhere.example"           office.example,owner@elsewhere.example,5
    lifetime_days = 5                             shop.example,,
"""

import csv
import tomllib
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from msgspec import Struct

from libs.mail.records import Domain, Overrides
from libs.mail.settings import DAY_S
from services.control import domains
from services.control.domains import SETTINGS, Book, Malformed

Settings = Mapping[str, str]  # what a person calls it -> as he types it


class Change(Struct, frozen=True):
    """Of one domain: its settings `before` and `after`, where they differ ("" for the default)."""

    domain: str
    before: Settings
    after: Settings


class Planned(Struct, frozen=True):
    """`kept`: domains to be removed for which mail waits, and how much."""

    add: Mapping[str, Settings]
    change: tuple[Change, ...]
    remove: tuple[str, ...]
    kept: Mapping[str, int]
    unchanged: int


# --- text ---


def from_toml(text: str) -> dict[str, Settings]:
    """Raises Malformed."""
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"it is no TOML: {error}") from error
    tables = read.pop("domains", {})
    if read or not isinstance(tables, dict):
        wrong = ", ".join(read) or "domains"
        raise Malformed(f'{wrong}: there are tables [domains."NAME"] and nothing else')
    found: dict[str, Settings] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise Malformed(f"domains.{name} is no table")
        _put(found, name, {each: _typed(value) for each, value in table.items()})
    return found


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    raise Malformed(f"{value!r} is neither text nor a number")


def from_csv(text: str) -> dict[str, Settings]:
    """Raises Malformed."""
    rows = csv.DictReader(text.splitlines(keepends=True), strict=True)
    found: dict[str, Settings] = {}
    try:
        if "domain" not in (rows.fieldnames or ()):
            raise Malformed("its first line has no column `domain`")
        for row in rows:
            if None in row or None in row.values():
                raise Malformed(f"line {rows.line_num} has not as many columns as the first one")
            _put(found, row.pop("domain"), {name: cell for name, cell in row.items() if cell})
    except csv.Error as error:
        raise Malformed(f"line {rows.line_num}: {error}") from error
    return found


def _put(found: dict[str, Settings], typed: str, given: Settings) -> None:
    name = domains.named(typed)
    if name in found:
        raise Malformed(f"{name} is there twice")
    try:
        domains.settings(given)
    except Malformed as error:
        raise Malformed(f"{name}: {error}") from error
    found[name] = given


def to_toml(book: Iterable[Domain]) -> str:
    """What from_toml reads back."""
    lines = []
    for domain in sorted(book, key=lambda each: each.domain):
        lines.append(f'[domains."{domain.domain}"]')
        lines += [f'{name} = "{_quoted(text)}"' for name, text in typed(domain.overrides).items()]
        lines.append("")
    return "\n".join(lines)


def to_csv(book: Iterable[Domain]) -> str:
    """What from_csv reads back."""
    out = _Out()
    rows = csv.DictWriter(out, ["domain", *SETTINGS], lineterminator="\n", restval="")
    rows.writeheader()
    for domain in sorted(book, key=lambda each: each.domain):
        rows.writerow({"domain": domain.domain, **typed(domain.overrides)})
    return "".join(out.parts)


class _Out:
    """What csv writes to."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, text: str) -> None:
        self.parts.append(text)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


_TYPED: Mapping[str, Callable[[Any], str]] = {
    "lifetime_days": lambda seconds: f"{seconds / DAY_S:.15g}",
    "xclient": lambda on: "on" if on else "off",
}


def typed(overrides: Overrides) -> dict[str, str]:
    """A domain's own settings as a person types them."""
    found = {}
    for name, (field, _, _) in SETTINGS.items():
        value = getattr(overrides, field)
        if value is not None:
            plain = value.value if isinstance(value, Enum) else value
            found[name] = _TYPED.get(name, str)(plain)
    return found


# --- what is to be done ---


def plan(book: Book, wanted: Mapping[str, Settings], waiting: Mapping[str, int], *, prune: bool) -> Planned:
    """`waiting`: mails of each domain; `prune`: what is not wanted is removed. Raises Refused for what cannot
    be."""
    add: dict[str, Settings] = {}
    change: list[Change] = []
    for name, given in wanted.items():
        overrides = domains.own_of(name, domains.settings(given))
        domain = book.domains.get(name)
        if domain is None:
            domains.may_be(book, name)
            add[name] = given
        elif domain.overrides != overrides:
            before, after = typed(domain.overrides), typed(overrides)
            differ = [each for each in SETTINGS if before.get(each) != after.get(each)]
            change.append(
                Change(name, {each: before.get(each, "") for each in differ},
                       {each: after.get(each, "") for each in differ})
            )  # fmt: skip
    gone = [name for name in book.domains if name not in wanted] if prune else []
    kept = {name: waiting[name] for name in gone if waiting.get(name)}
    remove = tuple(name for name in gone if name not in kept)
    return Planned(add, tuple(change), remove, kept, len(wanted) - len(add) - len(change))
