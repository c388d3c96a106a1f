"""What an examination found, as a text that a domain's owner is sent: in his words, without our commands.

Of what he cannot do himself he is told what to ask us, or that it is ours.
"""

import re
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

from libs.mail.records import Language
from services.control.findings import Kind, Level

WIDTH = 76
_PASTED, _FIRM = re.compile("`[^`]+`"), "\u00a0"  # a blank where no line ends
_MARKS = {"good": "+", "warning": "!", "wrong": "X"}


class Words(NamedTuple):
    """`remedies`: in place of those that name commands of ours."""

    opening: str
    well: str
    found: str
    levels: Mapping[str, str]
    why: str
    remedy: str
    closing: str
    remedies: Mapping[Kind, str]


WORDS: Mapping[Language, Words] = {
    Language.EN: Words(
        "We are the backup mail server of {domain}, and looked at whether all is ready for the day when your "
        "own server is away. No mail was sent for it. + is as it should be, ! is a warning, X is wrong.",
        "There is nothing to do.",
        "What we found, the most important first:",
        {
            Level.WRONG: "WRONG",
            Level.WARNING: "Warning",
            Level.NOTE: "Good to know",
        },
        "Why it matters:",
        "What to do:",
        "Whatever is in `quotation marks of this sort` can be copied as it is, without the marks. When it is "
        "done, ask us to look again.",
        {
            Kind.NOTHING_ABOVE: "Give your own server a lower number than {detail}, or write to us "
            "where it is.",
            Kind.NOT_REGISTERED: "Nothing: it is for us to do.",
            Kind.NO_SOURCE: "Nothing: it is for us to do.",
            Kind.SPF_UNTRIED: "Nothing: it is for us to do.",
            Kind.SMALLER: "Nothing, or ask us to set your domain to {detail} octets.",
            Kind.CALLOUT_BRAKE: "If your server is right and these people have left, write to us: we believe "
            "it then.",
            Kind.BOUNCE_BRAKE: "See whether all mailboxes are there again. If they are, or are gone for "
            "good, write to us.",
            Kind.NOBODY_KNOWN: "Send us a list of your addresses, if you want to be ready at once: a line "
            "each. Your server is asked about each of them.",
        },
    ),
    Language.DE: Words(
        "Wir sind der Backup-Mailserver von {domain} und haben nachgesehen, ob alles bereit ist für den Tag, "
        "an dem Ihr eigener Server ausfällt. Mail wurde dafür nicht geschickt. + ist, wie es sein soll, ! "
        "eine Warnung, X ist falsch.",
        "Es ist nichts zu tun.",
        "Was wir gefunden haben, das Wichtigste zuerst:",
        {
            Level.WRONG: "FALSCH",
            Level.WARNING: "Warnung",
            Level.NOTE: "Zur Kenntnis",
        },
        "Warum das wichtig ist:",
        "Was zu tun ist:",
        "Was in `Zeichen dieser Art` steht, kann so übernommen werden, ohne die Zeichen. Sagen Sie uns, wenn "
        "es erledigt ist, dann sehen wir noch einmal nach.",
        {
            Kind.NOTHING_ABOVE: "Geben Sie Ihrem Server eine kleinere Zahl als {detail}, oder schreiben Sie "
            "uns, wo er ist.",
            Kind.NOT_REGISTERED: "Nichts: das ist unsere Sache.",
            Kind.NO_SOURCE: "Nichts: das ist unsere Sache.",
            Kind.SPF_UNTRIED: "Nichts: das ist unsere Sache.",
            Kind.SMALLER: "Nichts, oder bitten Sie uns, für Ihre Domain {detail} Oktette einzustellen.",
            Kind.CALLOUT_BRAKE: "Hat Ihr Server recht und gibt es diese Empfänger nicht mehr, schreiben Sie "
            "uns: dann glauben wir ihm.",
            Kind.BOUNCE_BRAKE: "Sehen Sie nach, ob alle Postfächer wieder da sind. Sind sie es, oder bleiben "
            "sie weg, schreiben Sie uns.",
            Kind.NOBODY_KNOWN: "Wenn Sie sofort bereit sein wollen, schicken Sie uns eine Liste Ihrer "
            "Adressen, je eine Zeile. Ihr Server wird nach jeder gefragt.",
        },
    ),
}
_ORDER = (Level.WRONG, Level.WARNING, Level.NOTE)


def owner_report(found: Mapping[str, Any], language: Language) -> str:
    """`found`: a report of diagnoses.py in this language. Lines end with LF; see `filled`."""
    words = WORDS[language]
    lights = [f"  {_MARKS[each['level']]} {each['says']}" for each in found["lights"]]
    parts = [filled(words.opening.format(domain=found["domain"])), "\n".join(lights)]
    rows = sorted(found["findings"], key=lambda each: _ORDER.index(each["level"]))
    parts.append(filled(words.found if rows else words.well))
    for number, each in enumerate(rows, 1):
        own = words.remedies.get(Kind(each["kind"]))
        remedy = each["remedy"] if own is None else own.format(detail=each["detail"])
        parts.append(
            "\n".join(
                (
                    filled(f"{number}. {words.levels[each['level']]}: {each['what']}"),
                    filled(f"{words.why} {each['why']}", "   "),
                    filled(f"{words.remedy} {remedy}", "   "),
                )
            )
        )
    if rows:
        parts.append(filled(words.closing))
    return "\n\n".join(parts) + "\n"


def filled(text: str, indent: str = "", width: int = WIDTH) -> str:
    """In lines of so many characters, none of which cuts a word or what stands in backquotes: that is
    pasted."""
    whole = _PASTED.sub(lambda found: found[0].replace(" ", _FIRM), text)
    return textwrap.fill(
        whole, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    ).replace(_FIRM, " ")  # fmt: skip
