"""The relay domains of a Postfix, as its main.cf has them: postconf(5), transport(5), DATABASE_README.

What cannot be carried over is said in a remark, never guessed.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from libs.mail.settings import DAY_S
from services.control import domains
from services.control.domains import Malformed

# Their source is a text file of that very name; what postmap made of it is not read.
_TEXT_TYPES = frozenset({"hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash"})
_DEFAULTS = {
    "config_directory": "/etc/postfix",
    "default_database_type": "hash",
    "mydestination": "$myhostname, localhost.$mydomain, localhost",
}
_DELIVERY = frozenset({"", "smtp", "relay"})  # transports that hand over to a mail server
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_REFERENCE = re.compile(r"\$(?:\((?P<round>[^()]*)\)|\{(?P<curly>[^{}]*)\}|(?P<plain>\w+))")
_MOST_STEPS = 1000  # of expanding one value: more is a circle

Read = Callable[[str], str]  # the text of a file by its name; raises OSError


class Found(NamedTuple):
    """`domains`: name -> settings as a person types them; `recipients`: files for `recipients import`;
    `remarks`: what was not carried over, a sentence each."""

    domains: Mapping[str, Mapping[str, str]]
    recipients: tuple[str, ...]
    remarks: tuple[str, ...]


def parameters(text: str) -> dict[str, str]:
    """Of a main.cf: name -> value, not expanded. Raises Malformed."""
    found: dict[str, str] = {}
    for line in _logical(text):
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise Malformed(f"{line.split()[0]!r} is followed by no `=`")
        found[name.strip()] = value.strip()
    return found


def relayed(main_cf: str, read: Read) -> Found:
    """What a main.cf, and the files that it names, say of relay domains. Raises Malformed, also for a file or
    a kind of table that cannot be read."""
    return _Reader(parameters(main_cf), read).found()


def _logical(text: str) -> Iterator[str]:
    """Lines with their continuations; without comments and empty ones."""
    held = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace():
            held += f" {line.strip()}"
            continue
        if held:
            yield held
        held = line.rstrip()
    if held:
        yield held


def value(given: Mapping[str, str], name: str) -> str:
    """The parameter `name`, expanded: $name, ${name}, $(name), ${name?if it is not empty}, ${name:if it is}.
    Raises Malformed."""
    text = f"${name}"
    for _ in range(_MOST_STEPS):
        reference = _REFERENCE.search(text)
        if reference is None:
            return text.strip()
        text = text[: reference.start()] + _expanded(given, reference) + text[reference.end() :]
    raise Malformed(f"{name} refers to itself")


def _expanded(given: Mapping[str, str], reference: re.Match[str]) -> str:
    inner = next(part for part in reference.groups() if part is not None)
    name, mark, rest = re.match(r"(\w*)\s*([?:]?)(.*)", inner, re.DOTALL).groups()  # type: ignore[union-attr]
    known = given.get(name, _DEFAULTS.get(name, ""))
    if not mark:
        return known
    return rest if bool(known) is (mark == "?") else ""


class _Reader:
    def __init__(self, given: Mapping[str, str], read: Read) -> None:
        self._given, self._read = given, read
        self._remarks: list[str] = []

    def found(self) -> Found:
        names = self._names()
        transports = self._table("transport_maps")
        common = self._common()
        wanted = {name: common | self._primary(name, transports) for name in names}
        recipients = []
        for kind, where in map(self._typed, _split(self._value("relay_recipient_maps"))):
            if kind in _TEXT_TYPES:
                recipients.append(where)
            else:
                self._remarks.append(
                    f"relay_recipient_maps: {kind}: is not read; recipients are learnt by asking"
                )
        return Found(wanted, tuple(recipients), tuple(self._remarks))

    # --- parameters ---

    def _value(self, name: str) -> str:
        return value(self._given, name)

    def _common(self) -> dict[str, str]:
        """Settings that each domain gets, where main.cf says another thing than Postfix's default."""
        settings: dict[str, str] = {}
        if size := self._value("message_size_limit"):
            if size.isdigit() and int(size) >= 65_536:
                settings["max_size"] = size
            else:
                self._remarks.append(f"message_size_limit {size} is no setting here; the default is kept")
        if life := self._value("maximal_queue_lifetime"):
            days = _days(life)
            if 0 < days <= 30:
                settings["lifetime_days"] = f"{days:g}"
            else:
                self._remarks.append(
                    f"maximal_queue_lifetime {life} is not within 30 days; the default is kept"
                )
        return settings

    # --- domains and where their mail goes ---

    def _names(self) -> list[str]:
        if "relay_domains" not in self._given:
            raise Malformed("relay_domains is not set: this Postfix relays for nobody")
        found: dict[str, None] = {}
        for word in _split(self._value("relay_domains")):
            if word.startswith("!"):
                raise Malformed(f"relay_domains: {word} (an exception) cannot be carried over")
            if word.startswith("/"):
                words = self._text(word).split()
            elif ":" in word:
                words = list(self._entries("relay_domains", word))
            else:
                words = [word]
            for each in words:
                self._add(found, each)
        return list(found)

    def _add(self, found: dict[str, None], word: str) -> None:
        if word.startswith("."):
            self._remarks.append(f"{word}: subdomains are added one by one")
            return
        try:
            found[domains.named(word)] = None
        except Malformed:
            self._remarks.append(f"relay_domains: {word} is no domain that can be a relay domain")

    def _primary(self, name: str, transports: Mapping[str, str]) -> dict[str, str]:
        """Where its mail goes, by the transport table."""
        said = transports.get(name)
        if said is None:
            return {}
        transport, _, next_hop = said.partition(":")
        if transport not in _DELIVERY:
            self._remarks.append(
                f"{name}: transport {said} is not carried over; its MX records say where it is"
            )
            return {}
        host = re.fullmatch(r"\[([^]]+)\](?::(\d+))?", next_hop)
        if host is not None:
            at = f"[{host[1]}]" if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f]*:.*", host[1]) else host[1]
            return {"primary_host": f"{at}:{host[2]}" if host[2] else at}
        if next_hop.rstrip(".").lower() not in ("", name):
            self._remarks.append(
                f"{name}: {next_hop}, without brackets, goes by MX records of another domain"
            )
        return {}

    # --- tables ---

    def _table(self, name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for word in _split(self._value(name)):
            for key, value in self._entries(name, word).items():
                found.setdefault(key.lower(), value)
        return found

    def _entries(self, name: str, table: str) -> dict[str, str]:
        kind, where = self._typed(table)
        if kind == "inline":
            inner = where.strip().removeprefix("{").removesuffix("}")
            pairs = (each.strip(" {}").partition("=") for each in re.split(r",(?![^{]*\})|\}\s*\{", inner))
            return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}
        if kind not in _TEXT_TYPES:
            raise Malformed(f"{name}: a table of type {kind} cannot be read here: write it as texthash")
        lines = (line.split(None, 1) for line in _logical(self._text(where)))
        return {line[0]: line[1].strip() if len(line) > 1 else "" for line in lines}

    @staticmethod
    def _typed(table: str) -> tuple[str, str]:
        kind, _, where = table.removeprefix("proxy:").partition(":")
        return kind, where

    def _text(self, path: str) -> str:
        try:
            return self._read(path)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Malformed(f"{path}: {why}") from error


def _split(value: str) -> list[str]:
    """Words apart by blanks and commas; what is in braces is one."""
    return re.findall(r"(?:[^\s,{}]|\{(?:[^{}]|\{[^{}]*\})*\})+", value)


def _days(text: str) -> float:
    """A time of Postfix, whose unit is days here where none is given; 0 for what is none."""
    number = re.fullmatch(r"(\d+)([smhdw]?)", text)
    return 0.0 if number is None else int(number[1]) * _SECONDS[number[2] or "d"] / DAY_S
