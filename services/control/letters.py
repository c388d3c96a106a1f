"""A notice to a domain's contact, in words: what happened, since when, what it means, what to do.

The words are in letters_en.py and letters_de.py: of each cause a subject, in ASCII, and paragraphs. What is
in them for programs is `details`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from libs.mail.hints import Us, for_owner
from libs.mail.knowledge import Health
from libs.mail.records import Language
from libs.mail.reply import escaped
from libs.mail.settings import DAY_S
from services.control import letters_de, letters_en
from services.control.news import Known, News, Telling

Details = Mapping[str, str | int | float]

_WORDS = {Language.EN: letters_en, Language.DE: letters_de}
MOST_NAMED = 50  # domains in a letter


class Letter(NamedTuple):
    """`text`: paragraphs with LF between them; an empty one is an empty line."""

    subject: str
    text: str
    details: Details


def letter(
    domain: str, telling: Telling, known: Known, us: Us, language: Language, now: float, parked: int = 0
) -> Letter:
    """`parked`: how many mails are."""
    return _worded(domain, telling.news, _details(telling, known, us, language, now, parked), us, language)


def address_letter(
    domain: str, others: Sequence[str], host: str, address: str, day: str, us: Us, language: Language
) -> Letter:
    """That `host` gets this address on that day. `others`: more domains of the same contact."""
    every = [domain, *others]
    named = ", ".join(every[:MOST_NAMED]) + (", ..." if len(every) > MOST_NAMED else "")
    details = {"new_host": host, "new_address": address, "from": day, "domains": named}
    return _worded(domain, News.ADDRESS, details, us, language)


def _worded(domain: str, news: str, details: Details, us: Us, language: Language) -> Letter:
    words = _WORDS[language]
    filled: dict[str, str | int] = {
        "domain": domain,
        "host": us.name,
        "hosts": ", ".join((us.name, *us.others)),
    }
    for name, value in details.items():
        filled[name] = moment(value) if isinstance(value, float) else value
    subject, *paragraphs = words.LETTERS[news]
    said = [words.OPENING, *paragraphs]
    if details.get("health") == Health.DEFERRING:
        said[1] = words.DEFERRING
    if details.get("reply"):
        said.insert(2, words.REPLY)
    if news == News.BACK:
        said.append(_handed(details, words.HANDED))
    if "hint" in details:
        said.append(words.HINT if details["hint"] else words.NO_HINT)
    text = "\n\n".join(each.format(**filled) for each in (*said, words.CLOSING))
    return Letter(subject.format(**filled), text, details)


def _handed(details: Details, words: Mapping[str, str]) -> str:
    """What became of the mail that waited."""
    waited, handed = details["waited"], details["handed"]
    if not waited:
        return words["none"]
    if handed == waited:
        return words["all"]
    return words["still" if details["waiting"] else "some"]


def _details(telling: Telling, known: Known, us: Us, language: Language, now: float, parked: int) -> Details:
    """Moments are floats, in wall seconds; all other numbers are counts."""
    primary, facts = known.primary, known.facts
    found: dict[str, str | int | float] = {"since": float(telling.since)}
    if telling.news == News.PARKED:
        return found | {"parked": parked}
    if telling.news == News.BLOCKING:
        said = "" if facts is None else facts.reply
        return found | {"reply": escaped(said, 300), "hint": for_owner(facts, primary, us, now, language)}
    if primary is None:
        return found
    found["waiting"] = primary.waiting
    if telling.news in (News.DOWN, News.REFUSING):
        found |= {"health": primary.health.value, "reply": escaped(primary.last_reply, 300)}
        found["days"] = f"{known.lifetime_s / DAY_S:g}"
        if telling.news == News.REFUSING:
            found["hint"] = for_owner(facts, primary, us, now, language)
    elif telling.news == News.BACK:
        found |= {"back": float(primary.since), "waited": primary.waited, "handed": primary.handed}
    elif telling.news == News.EXPIRING:
        found |= {"oldest": float(primary.oldest), "until": float(primary.oldest + known.lifetime_s)}
    return found


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
