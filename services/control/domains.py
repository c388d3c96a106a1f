"""The relay domains: what may be added and removed, and in which order that is written (rule 7).

`count` of the installation record is raised after an add and lowered before a remove. So a reader that sees
fewer than `count` domains knows that it does not see all, and never the other way round.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import to_builtins
from msgspec.structs import replace

from libs.mail.address import BadAddress, Mailbox, domain_name, mailbox
from libs.mail.notice import is_url
from libs.mail.records import Admission, Domain, Enforce, Installation, Language, Overrides, Unverified
from libs.mail.reply import escaped
from libs.mail.settings import DAY_S, DomainSettings
from libs.smtp.route import place
from services.control import webhook

LATE_CHECK_S = 3600.0


class How(StrEnum):
    """What becomes of the mail of a domain that is removed. EMPTY: there is none, or the domain stays; DRAIN:
    it is handed over; BOUNCE: its senders are told; ERASE: it ends, and what is known of recipients."""

    EMPTY = "empty"
    DRAIN = "drain"
    BOUNCE = "bounce"
    ERASE = "erase"


class Refused(Exception):  # noqa: N818
    """Not done; the message is one sentence for the person who asked."""


class Unknown(Refused):
    """There is no such thing."""


class Malformed(Refused):
    """What was asked for is not well-formed."""


class Book(NamedTuple):
    """What `domains` holds, and what it is compared with: the configured `id`; `closed` are domains that
    cannot be relay domains: those of our hosts and of the operators."""

    id: str
    closed: tuple[str, ...]
    installation: Installation | None
    domains: Mapping[str, Domain]

    @property
    def whole(self) -> bool:
        record = self.installation
        return record is not None and record.id == self.id and len(self.domains) >= record.count


def _size(text: str) -> int:
    return _at_least(65536, text)


def _count(text: str) -> int:
    return _at_least(1, text)


def _at_least(least: int, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15 or int(text) < least:
        raise ValueError(text)
    return int(text)


def _place(text: str) -> str:
    return str(place(text))


def _switch(text: str) -> bool:
    return {"on": True, "off": False}[text]


def _lifetime(text: str) -> float:
    days = float(text)
    if not math.isfinite(days) or not 0 < days <= 30:
        raise ValueError(text)
    return days * DAY_S


def _contact(text: str) -> str:
    if is_url(text):
        return webhook.url(text)
    try:
        return str(mailbox(text))
    except BadAddress as error:
        raise ValueError(text) from error


# What a person calls it -> the field of Overrides, what is right, and how it is read.
SETTINGS: Mapping[str, tuple[str, str, Callable[[str], Any]]] = {
    "admission": ("admission", "always or fallback", Admission),
    "unverified": ("unverified", "accept or defer", Unverified),
    "enforce": ("enforce", "off, dmarc or spf", Enforce),
    "language": ("language", "en or de", Language),
    "contact": (
        "contact",
        "the mail address of the owner, outside of the domain, or an https:// URL",
        _contact,
    ),
    "contact_secret": ("contact_secret", "whsec_ and 24 to 64 octets in base64", webhook.checked),
    "max_size": ("max_size", "a number of octets, 65536 or more", _size),
    "lifetime_days": ("lifetime_s", "a number of days, at most 30", _lifetime),
    "max_connections": ("max_connections", "a number, 1 or more", _count),
    "max_rate": ("max_rate", "a number of mails a minute, 1 or more", _count),
    "max_waiting": ("max_waiting", "a number of mails, 1 or more", _count),
    "max_waiting_size": ("max_waiting_size", "a number of octets, 1 or more", _count),
    "primary_host": (
        "primary_host",
        "a host or [address], and a port where it is not 25: mail.office.example:2525",
        _place,
    ),
    "tls_name": ("tls_name", "the host name in the certificate of the primary", domain_name),
    "xclient": ("xclient", "on or off", _switch),
}
NO_OVERRIDES = Overrides()

_SHOWN = (
    "admission", "unverified", "enforce", "lifetime_s", "language", "contact", "contact_secret", "max_size",
    "max_connections", "max_rate", "max_waiting", "max_waiting_size", "primary_host", "tls_name", "xclient",
)  # fmt: skip

# One step of a change, in order: a domain's record, its tombstone, or the installation record.
Step = Domain | str | Installation


def named(text: str) -> str:
    """The domain that a person typed, as lower-case A-label. Raises Malformed."""
    try:
        name = domain_name(text.strip())
    except BadAddress as error:
        raise Malformed(f"{text!r} is no domain name") from error
    labels = name.split(".")
    if len(labels) < 2 or labels[-1].isdigit():
        raise Malformed(f"{text!r} is no domain name that can receive mail from everywhere")
    return name


def language(text: str) -> Language:
    """Raises Malformed."""
    try:
        return Language(text)
    except ValueError as error:
        raise Malformed(f"language must be {SETTINGS['language'][1]}, not {text!r}") from error


def mailbox_of(domain: str, text: str) -> Mailbox:
    """The mailbox of `domain` (normal form) that `text` is. Raises Malformed."""
    try:
        found = mailbox(text)
    except BadAddress as error:
        raise Malformed(f"{text!r} is no mail address") from error
    if found.domain != domain:
        raise Malformed(f"{escaped(str(found))} is not of {domain}")
    return found


def how(text: str) -> How:
    """Raises Malformed."""
    try:
        return How(text)
    except ValueError as error:
        raise Malformed(f"{text!r} is none of {', '.join(How)}") from error


def settings(given: Mapping[str, str], before: Overrides = NO_OVERRIDES) -> Overrides:
    """A domain's own settings with those of SETTINGS that a person typed; `default` takes one back. Raises
    Malformed."""
    found: dict[str, Any] = {}
    for name, text in given.items():
        if name not in SETTINGS:
            raise Malformed(f"{name!r} is no setting of a domain; there are {', '.join(SETTINGS)}")
        field, wanted, read = SETTINGS[name]
        try:
            found[field] = None if text == "default" else read(text)
        except (ValueError, KeyError) as error:
            raise Malformed(f"{name} must be {wanted}, or default, not {text!r}") from error
    return replace(before, **found)


def changed(book: Book, name: str, given: Mapping[str, str]) -> Sequence[Step]:
    """The steps that give `name` other settings. Raises Refused."""
    writable(book)
    if not given:
        raise Malformed(f"nothing to set: give one of {', '.join(SETTINGS)}")
    domain = known(book, name)
    return [replace(domain, overrides=own_of(name, settings(given, domain.overrides)))]


def left(book: Book, name: str, now: float) -> Sequence[Step]:
    """The steps that make `name` leave: none where it is leaving already. Raises Refused."""
    writable(book)
    domain = known(book, name)
    return [] if domain.leaving else [replace(domain, leaving=now)]


def gone(book: Book, now: float, leave_s: float) -> list[str]:
    """The domains that have been leaving for `leave_s`, at `now` (wall seconds)."""
    return [each.domain for each in book.domains.values() if each.leaving and now - each.leaving >= leave_s]


def stopped(book: Book, name: str, how: str) -> Sequence[Step]:
    """The steps that make `name` suspended, held or active. Raises Refused."""
    writable(book)
    if how not in ("suspended", "held", "active"):
        raise Malformed(f"{how!r} is neither suspended, held nor active")
    stays = 0.0 if how == "active" else known(book, name).leaving
    return [replace(known(book, name), suspended=how == "suspended", held=how == "held", leaving=stays)]


def own_of(name: str, overrides: Overrides) -> Overrides:
    """Settings that `name` may have. Raises Malformed."""
    contact = overrides.contact or ""
    if is_url(contact):
        if not overrides.contact_secret:
            raise Malformed("a contact that is a URL needs contact_secret, which signs what is posted there")
    elif contact.rpartition("@")[2] == name:
        raise Malformed(f"contact must be outside of {name}: its own server is away when there is news")
    return overrides


def needs_secret(given: Mapping[str, str], before: Overrides = NO_OVERRIDES) -> bool:
    """Does the contact become a URL, and nobody said with which secret?"""
    return is_url(given.get("contact", "")) and not (given.get("contact_secret") or before.contact_secret)


def said(given: Mapping[str, str]) -> str:
    """Settings as they are told in an event; a secret is none of it."""
    return ", ".join(f"{name}={'...' if name == 'contact_secret' else text}" for name, text in given.items())


def shown(settings: DomainSettings) -> dict[str, Any]:
    """Those in force, as JSON has them."""
    return {name: to_builtins(getattr(settings, name)) for name in _SHOWN}


def own(domain: Domain) -> list[str]:
    """The names of the settings of which the domain has its own value."""
    return [name for name, (field, _, _) in SETTINGS.items() if getattr(domain.overrides, field) is not None]


def add(
    book: Book, name: str, now: float, *, active: bool, overrides: Overrides = NO_OVERRIDES
) -> Sequence[Step]:
    """The steps that add `name` (lower-case A-label). Raises Refused."""
    record = writable(book)
    if name in book.domains:
        if book.domains[name].leaving:
            raise Refused(f"{name} is leaving still: wait until it is removed, or keep it with resume")
        raise Refused(f"{name} is a relay domain already")
    domain = new(book, name, now, active=active, overrides=overrides)
    return domain, replace(record, count=len(book.domains) + 1)


def new(book: Book, name: str, now: float, *, active: bool, overrides: Overrides) -> Domain:
    """The record of a domain that is added now. Raises Refused."""
    may_be(book, name)
    since, own = now if active else 0.0, own_of(name, overrides)
    return Domain(domain=name, added=now, active_since=since, overrides=own, era=writable(book).era)


def replaced(book: Book, name: str, given: Mapping[str, str]) -> Sequence[Step]:
    """The steps after which `name` has these settings of its own and no others. Raises Refused."""
    return [replace(known(book, name), overrides=own_of(name, settings(given)))]


def counted(book: Book) -> Sequence[Step]:
    """The steps after which as many domains are counted as there are."""
    record = writable(book)
    return [] if record.count == len(book.domains) else [replace(record, count=len(book.domains))]


def removed(book: Book, names: Sequence[str]) -> Sequence[Step]:
    """The steps that remove all of these: first the count, then their records. Raises Refused."""
    record = writable(book)
    if not names:
        return []
    # What is known of their recipients counts for no other owner.
    era = max([record.era, *(known(book, name).era + 1 for name in names)])
    return replace(record, count=len(book.domains) - len(names), era=era), *names


def may_be(book: Book, name: str) -> None:
    """Raises Refused for a name that cannot be a relay domain."""
    if name in book.closed:
        raise Refused(f"{name} cannot be a relay domain: it is ours or the operators' own")


def remove(book: Book, name: str, waiting: int) -> Sequence[Step]:
    """The steps that remove `name`, for which `waiting` mails are in the queue. Raises Refused."""
    known(book, name)
    if waiting:
        mails = "1 mail waits" if waiting == 1 else f"{waiting} mails wait"
        raise Refused(f"{name} cannot be removed: {mails} for its primary; say --drain, --bounce or --erase")
    return removed(book, [name])


def known(book: Book, name: str) -> Domain:
    """Raises Unknown."""
    if (domain := book.domains.get(name)) is None:
        raise Unknown(f"{name} is no relay domain")
    return domain


def healed(book: Book) -> Installation | None:
    """The installation record with the count raised, when an add was cut off before that; else None.

    A count that is too high is left alone: it says that domains are missing.
    """
    record = book.installation
    if record is None or record.id != book.id or record.count >= len(book.domains):
        return None
    return replace(record, count=len(book.domains))


def activated(domain: Domain, now: float) -> Domain:
    """`domain`, whose DNS has named us. That is kept whatever DNS says later."""
    return domain if domain.active_since else replace(domain, active_since=now)


def check_due(domain: Domain, checked_s: float | None, now: float, every_s: float) -> bool:
    """Is it time to look at the MX records of a pending domain? `checked_s`: seconds since the last look;
    `now`: wall time. Each `every_s` for a day, then hourly."""
    if domain.active_since:
        return False
    interval_s = every_s if now - domain.added < DAY_S else max(every_s, LATE_CHECK_S)
    return checked_s is None or checked_s >= interval_s


def ours(book: Book) -> Installation:
    """Raises Refused when the log is not that of this installation."""
    record = book.installation
    if record is None:
        raise Refused("there is no installation record: this log was never set up (topics apply --new)")
    if record.id != book.id:
        raise Refused(f"the log belongs to installation {record.id}, not to {book.id}")
    return record


def writable(book: Book) -> Installation:
    """The installation record of a register that may be changed. Raises Refused."""
    record = ours(book)
    if not book.whole:
        raise Refused(f"{record.count - len(book.domains)} relay domains are missing in the log")
    return record
