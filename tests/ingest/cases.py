"""Case files of dialogues: what is known, what is said, what is queued afterwards (see cases/README)."""

import ipaddress
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from libs import topics
from libs.mail.address import mailbox
from libs.mail.knowledge import (
    Callouts,
    Health,
    PrimaryFacts,
    PrimaryState,
    RecipientStatus,
    RecipientTry,
    Status,
)
from libs.mail.records import (
    Access,
    Action,
    Admission,
    Domain,
    Overrides,
    Permission,
    Trace,
    Unverified,
    Verdict,
)
from tests.helpers.client import BadDialogue, Turn, octets, turns

FOLDER = Path(__file__).parent / "cases"


class BadCase(Exception):  # noqa: N818
    """A case file that cannot be read: file, line, and what would be right."""


class Case:
    """One case file. `domains`, `recipients`, `primaries`: what the tables hold; `answers`: mailbox ->
    what a callout brings, `asked`: the questions there must be; `away`: topics that take nothing;
    `sights`: who was sent back `later_s` ago; `smtp`, `timing`: settings; `proxy`: what comes before the
    dialogue, from one of `proxies`; `client`: its address; `before`: how many connections it had, `gone`:
    and has no more; `access`: what the operator said; `socket`: it needs a clock or DNS; `queued`: the
    lines of what must be in the queue, `received`: what stands in their traces,
    `judged`: who sent them for SPF; `limited`: what the
    metric says of each limit; `requested`: domains whose mail was asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_bytes().decode()
        self.later_s = max((float(age) for age in re.findall(r"(?m)^sighted .*age=(\d+)", text)), default=0.0)
        self.now = (
            time.time() + self.later_s
        )  # ages count back from here: a case is read right before it is played
        self.domains: dict[str, Domain] = {}
        self.recipients: dict[str, tuple[str, Struct]] = {}
        self.primaries: dict[str, PrimaryState] = {}
        self.answers: dict[str, list[tuple[str, Struct]]] = {}
        self.installation: tuple[str, int | None] | None = ("", None)
        self.verdict: Verdict | None = Verdict("", Action.ACCEPT, b"", may_notify=True)
        self.zone: list[str] = []
        self.smtp: dict[str, Any] = {}
        self.timing: dict[str, Any] = {}
        self.defaults: dict[str, Any] = {}
        self.tls = False
        self.proxy = b""
        self.proxies = "127.0.0.0/8"
        self.client = "127.0.0.1"
        self.before, self.gone = 0, False
        self.access: list[Access] = []
        self.socket = False
        self.full = False
        self.away: set[str] = set()
        self.queued: list[str] = []
        self.contents: list[bytes] = []
        self.requested: list[str] = []
        self.received: list[str] = []
        self.judged: list[str] = []
        self.events: list[str] = []
        self.limited: dict[str, int] = {}
        self.turns: list[Turn] = []
        self.sights: list[tuple[str, str, str]] = []
        self.asked: list[str] = []
        self._read(text)

    def _read(self, text: str) -> None:
        parts = re.split(r"(?m)^---\n", text)
        if len(parts) != 3 or not text.startswith("# "):
            raise BadCase(f"{self.path.name}: a comment with the rule, then three parts divided by ---")
        first = parts[0].count("\n") + 2
        self._lines(parts[0], 1, SETUP)
        try:
            self.turns = turns(parts[1], first)
        except BadDialogue as error:
            raise BadCase(f"{self.path.name}: {error}") from error
        self._lines(parts[2], first + parts[1].count("\n") + 1, AFTER)

    def _lines(self, text: str, first: int, keywords: dict[str, Callable[["Case", list[str]], None]]) -> None:
        for number, line in enumerate(text.split("\n"), first):
            if not line.strip() or line.startswith("#"):
                continue
            keyword, *words = line.split()
            if keyword not in keywords:
                known = " ".join(sorted(keywords))
                raise BadCase(f"{self.path.name}:{number}: {keyword!r} is none of: {known}")
            try:
                keywords[keyword](self, [*words, line] if keyword in WHOLE else words)
            except (ValueError, IndexError, KeyError) as error:
                raise BadCase(f"{self.path.name}:{number}: {line!r} cannot be read: {error}") from error


def _options(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) if "=" in word else (word, "yes") for word in words)


def _relay(case: Case, words: list[str]) -> None:
    domain, given = words[0], _options(words[1:])
    overrides = Overrides(
        unverified=Unverified(given["unverified"]) if "unverified" in given else None,
        **{
            name: int(given[name])
            for name in ("max_size", "max_waiting", "max_waiting_size")
            if name in given
        },
        admission=Admission(given["admission"]) if "admission" in given else None,
    )
    case.domains[domain] = Domain(
        domain,
        1.0,
        0.0 if "pending" in given else 2.0,
        suspended="suspended" in given,
        overrides=overrides,
        leaving=3.0 if "leaving" in given else 0.0,
    )


def _status(mailbox: str, word: str, at: float) -> tuple[str, Struct]:
    key = mailbox.lower()
    if word == "unverifiable":
        return f"try:{key}", RecipientTry(mailbox, at, "connect: timeout")
    if word == "greylisted":
        return f"try:{key}", RecipientTry(mailbox, at, "greylisted")
    if word.endswith("-elsewhere"):
        said = Status(word.removesuffix("-elsewhere")).value
        return f"try:{key}", RecipientTry(mailbox, at, "unreachable", elsewhere=said)
    if word == "doubted":
        return f"try:{key}", RecipientTry(mailbox, at, "undeliverable", against_since=at)
    return key, RecipientStatus(mailbox, Status(word), at, at)


def _known(case: Case, words: list[str]) -> None:
    age_s = float(_options(words[2:]).get("age", "60"))
    key, record = _status(words[0], words[1], case.now - age_s)
    case.recipients[key] = (words[0].rpartition("@")[2], record)


def _facts(case: Case, words: list[str]) -> None:
    case.recipients["@" + words[0]] = (words[0], _primary_facts(case, words[0], words[1:]))


def _primary_facts(case: Case, domain: str, words: list[str]) -> PrimaryFacts:
    given = _options(words[1:])
    return PrimaryFacts(
        domain,
        Callouts(words[0]),
        case.now,
        braked="braked" in given,
        size=int(given.get("size", "0")),
        smtputf8={"yes": True, "no": False}.get(given.get("smtputf8", "")),
    )


def _primary(case: Case, words: list[str]) -> None:
    given = _options(words[2:])
    case.primaries[words[0]] = PrimaryState(
        words[0],
        Health(words[1]),
        case.now - float(given.get("since", "60")),
        confirmed=case.now - float(given["confirmed"]) if "confirmed" in given else 0.0,
        mx=(given["mx"],) if "mx" in given else (),
        mx_seen=case.now - float(given.get("mx-seen", "0")),
        waiting=int(given.get("waiting", "0")),
        bytes=int(given.get("bytes", "0")),
    )


def _sighted(case: Case, words: list[str]) -> None:
    given = _options(words[2:])
    if float(given["age"]) != case.later_s:
        raise ValueError("one age in a case")
    client = given.get("client", case.client)
    case.sights.append((client, words[0].removeprefix("<>"), mailbox(words[1]).key))


def _callout(case: Case, words: list[str]) -> None:
    case.answers.setdefault(words[0].lower(), []).append(_status(words[0], words[1], case.now))


def _taught(case: Case, words: list[str]) -> None:
    domain = words[0].rpartition("@")[2]
    facts = f"@{domain}", _primary_facts(case, domain, words[1:])
    case.answers.setdefault(words[0].lower(), []).insert(0, facts)


def _installation(case: Case, words: list[str]) -> None:
    match words:
        case ["missing"]:
            case.installation = None
        case ["other"]:
            case.installation = ("installation-2", None)
        case ["count", number]:
            case.installation = ("", int(number))
        case _:
            raise ValueError("missing, other or count N")


def _set(case: Case, words: list[str]) -> None:
    value: Any = words[1]
    if value.startswith("["):
        value = json.loads(" ".join(words[1:]))
    elif value.isdigit():
        value = int(value)
    elif re.fullmatch(r"[\d.]+", value):
        value = float(value)
    part, _, name = words[0].partition(".")
    {"smtp": case.smtp, "timing": case.timing, "defaults": case.defaults}[part][name] = value


def _client(case: Case, words: list[str]) -> None:
    ip = ipaddress.ip_address(words[0])
    ours = "198.51.100.1" if ip.version == 4 else "2001:db8::1"
    case.client, case.proxy = str(ip), f"PROXY TCP{ip.version} {ip} {ours} 4711 25\r\n".encode()


def _access(case: Case, words: list[str]) -> None:
    case.access.append(Access(words[1], Permission(words[0])))


def _before(case: Case, words: list[str]) -> None:
    case.before, case.gone = int(words[0]), words[1:] == ["gone"]
    if words[1:] not in ([], ["gone"]):
        raise ValueError("before N [gone]")


def _limited(case: Case, words: list[str]) -> None:
    case.limited[words[0]] = int(words[1]) if words[1:] else 1


def _away(case: Case, words: list[str]) -> None:
    if words[0] not in topics.TOPICS:
        raise ValueError(f"one of {', '.join(topics.TOPICS)}")
    case.away.add(words[0])
    case.socket = True


def _verdict(case: Case, words: list[str]) -> None:
    if words[0] == "silent":
        case.verdict = None
    else:
        case.verdict = Verdict("", Action(words[0]), b"", may_notify=True, reply=" ".join(words[1:]))


def _whole(name: str) -> Callable[[Case, list[str]], None]:
    def keep(case: Case, words: list[str]) -> None:
        getattr(case, name).append(words[-1])

    return keep


SETUP: dict[str, Callable[[Case, list[str]], None]] = {
    "relay": _relay,
    "known": _known,
    "facts": _facts,
    "primary": _primary,
    "callout": _callout,
    "taught": _taught,
    "sighted": _sighted,
    "installation": _installation,
    "set": _set,
    "verdict": _verdict,
    "dns": lambda case, words: case.zone.append(" ".join(words[:-1])),
    "tls": lambda case, _: setattr(case, "tls", True),
    "proxy": lambda case, words: setattr(case, "proxy", octets(words[-1].removeprefix("proxy").strip())),
    "proxies": lambda case, words: setattr(case, "proxies", words[0]),
    "full": lambda case, _: setattr(case, "full", True),
    "away": _away,
    "client": _client,
    "before": _before,
    "trusted": lambda case, words: case.smtp.setdefault("trusted_relays", []).append(words[0]),
    "access": _access,
    "socket": lambda case, _: setattr(case, "socket", True),
}
AFTER: dict[str, Callable[[Case, list[str]], None]] = {
    "queued": _whole("queued"),
    "content": lambda case, words: case.contents.append(octets(words[-1].removeprefix("content").strip())),
    "event": _whole("events"),
    "asked": lambda case, words: case.asked.append(" ".join(words)),
    "limited": _limited,
    "requested": lambda case, words: case.requested.append(words[0]),
    "judged": lambda case, words: case.judged.append(" ".join(words)),
    "received": lambda case, words: case.received.append(words[-1].removeprefix("received").strip()),
}
WHOLE = {"queued", "content", "event", "dns", "proxy", "received"}


def described(domain: str, kind: str, sender: str, recipients: list[str], extra: str) -> str:
    """The `queued` line of a mail."""
    words = ["queued", domain, "from", sender or "<>", "to", ", ".join(recipients), extra]
    return " ".join(word for word in [*words, "" if kind == "relayed" else kind] if word)


def judged(trace: Trace) -> str:
    """The `judged` line of a mail."""
    words = [trace.client or "-", trace.helo or "-", *(["by", trace.relay] if trace.relay else [])]
    return " ".join(words)


def cases() -> list[Path]:
    return sorted([*FOLDER.glob("*.smtp"), FOLDER / "README"])


__all__ = ["BadCase", "Case", "cases", "described", "judged", "replace"]
