"""What each finding means for people: what is so, why that matters, what to do; in English and German.

The remedy at a mail server itself is libs/mail/hints.py's, with our addresses in it, for pasting; {hint} is
its place here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from libs.mail.hints import Us, hint
from libs.mail.records import Language
from libs.mail.reply import escaped, parse_line
from libs.mail.stance import Stance
from libs.mail.trouble import Trouble, before, server, trouble
from services.control import diagnoses_de, diagnoses_en
from services.control.examined import Examined, Visit
from services.control.findings import Finding, Kind, Level, Light, findings, lights


class Diagnosis(NamedTuple):
    """Sentences."""

    what: str
    why: str
    remedy: str


WORDS: Mapping[Language, Mapping[Kind, tuple[str, str, str]]] = {
    Language.EN: diagnoses_en.WORDS,
    Language.DE: diagnoses_de.WORDS,
}
LIGHTS: Mapping[Language, Mapping[Light, str]] = {
    Language.EN: diagnoses_en.LIGHTS,
    Language.DE: diagnoses_de.LIGHTS,
}
_UNSEEN = {Language.EN: diagnoses_en.UNSEEN, Language.DE: diagnoses_de.UNSEEN}
_REPLY = re.compile(r"(?:[A-Z]+: )?([245]\d\d(?: .*)?)")  # behind the stage that it was said at
# What stands in our way where no reply says it.
_TROUBLES = {
    Kind.SPF_CHECKED: Trouble.SPF,
    Kind.GREYLISTED: Trouble.GREYLIST,
    Kind.ACCEPTS_ALL: Trouble.CATCH_ALL,
    Kind.REFUSES_LATE: Trouble.LATE,
    Kind.SILENT: Trouble.DROPPED,
    Kind.REFUSED: Trouble.DROPPED,
    Kind.HUNG_UP: Trouble.DROPPED,
}


def diagnosis(finding: Finding, seen: Examined, us: Us, language: Language) -> Diagnosis:
    """The sentences for one finding."""
    filled = {
        "domain": seen.domain,
        "at": finding.at,
        "detail": escaped(finding.detail),
        "hosts": ", ".join(seen.us),
        "records": "; ".join(f"{seen.domain}. MX {_worse(seen)} {host}." for host in seen.us),
        "name": us.name,
        "hint": _hint(finding, seen, us, language),
        "size": str(seen.known.max_size),
    }
    what, why, remedy = WORDS[language][finding.kind]
    return Diagnosis(what.format(**filled), why.format(**filled), remedy.format(**filled))


def report(seen: Examined, us: Us, language: Language) -> dict[str, Any]:
    """What was found, as plain data. `lights`: of each of the five `light`, `level` (good, warning, wrong),
    `says` (true when it is good) and `fix`, the one thing to do about it first, "" for nothing. `findings`:
    of each `kind`, `level`, `light`, `at` and `detail`, as a Finding has them, and the sentences `what`,
    `why` and `remedy`."""
    found = findings(seen)
    rows = [
        {
            "kind": each.kind.value,
            "level": each.level.value,
            "light": each.light.value,
            "at": each.at,
            "detail": each.detail,
            **diagnosis(each, seen, us, language)._asdict(),
        }
        for each in found
    ]
    return {
        "domain": seen.domain,
        "wrong": any(each.level is Level.WRONG for each in found),
        "lights": [_shown(light, level, rows, language) for light, level in lights(found, seen).items()],
        "findings": rows,
    }


def _shown(
    light: Light, level: Level | None, rows: Sequence[Mapping[str, str]], language: Language
) -> dict[str, str]:
    if level is None or level is Level.NOTE:
        return {"light": light.value, "level": "good", "says": LIGHTS[language][light], "fix": ""}
    first = next((each for each in rows if each["light"] == light and each["level"] == level), None)
    fix = _UNSEEN[language] if first is None else first["remedy"]
    return {"light": light.value, "level": level.value, "says": LIGHTS[language][light], "fix": fix}


def _worse(seen: Examined) -> int:
    """A preference below that of every server which is not ours."""
    return max((each.preference for each in seen.exchanges if not each.ours), default=10) + 10


def _hint(finding: Finding, seen: Examined, us: Us, language: Language) -> str:
    """What the owner pastes where: by the server's own words, as far as they are known."""
    visit = next((each for each in seen.visits if each.address == finding.at), Visit("", ""))
    match = _REPLY.fullmatch(finding.detail)
    reply = None if match is None else parse_line(match[1])
    stuck = _TROUBLES.get(finding.kind)
    if stuck is None:
        stuck = trouble(Stance.BLOCKING, reply, "") if reply else Trouble.ADDRESS
    at = before(server(visit.greeting, None), server("", reply))
    return hint(stuck or Trouble.ADDRESS, at, us, language)
