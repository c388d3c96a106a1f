"""DMARC (RFC 9989): the author and who authenticated -> one result, without input or output.

As spf.py it asks `lookup`, which raises `Missing` for what is not known yet; the caller finds it out and asks
again. Facts only: `policy` is what the author's domain wishes, what becomes of the mail is decided elsewhere.
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from libs.mail.author import Author
from services.verify import dkim, spf
from services.verify.spf import FOR_EVER, Answer, Lookup, Missing


class Result(StrEnum):
    """RFC 9989 section 9.2."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class Policy(StrEnum):
    """What the author's domain wishes for mail that fails (section 4.7, p=), in rising strictness."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class Identifier(NamedTuple):
    """A domain that authenticated, by `method` spf or dkim. `sure` False: it may have, but DNS, time or a
    fault of ours kept that from being known; `domain` "" then stands for any."""

    method: str
    domain: str
    sure: bool = True


class Checked(NamedTuple):
    """`domain`: the author's, of several the one that decided, "" where there is none to be found; `policy`:
    what the record asks for it after sp=, np= and t=; `record`: whose record that is; `aligned`: the methods
    that authenticated for the author; `reason`: of a permerror."""

    result: Result
    domain: str = ""
    policy: Policy | None = None
    record: str = ""
    aligned: tuple[str, ...] = ()
    reason: str = ""


def identifiers(
    sender: str, of_sender: spf.Result, signatures: Iterable[dkim.Checked]
) -> tuple[Identifier, ...]:
    """Who authenticated (section 4.3), each once. `sender`: the domain of MAIL FROM, or with the null
    reverse-path the name in HELO (section 3.2.4)."""
    found: list[Identifier] = []
    if of_sender is spf.Result.PASS or of_sender is spf.Result.TEMPERROR:
        found.append(Identifier("spf", sender.rstrip(".").lower(), of_sender is spf.Result.PASS))
    for one in signatures:
        if one.result is dkim.Result.PASS or one.result is dkim.Result.TEMPERROR:
            found.append(Identifier("dkim", one.domain, one.result is dkim.Result.PASS))
    return tuple(dict.fromkeys(found)) if len(found) > 1 else tuple(found)


# --- records (section 4.7 and 4.8) ---


class Record(NamedTuple):
    """`policy`, `subdomains`, `nonexistent`: p=, sp=, np= with their defaults; `psd`: y, n or u; `defect`: of
    a record that does not apply, "" where it does."""

    policy: Policy = Policy.NONE
    subdomains: Policy = Policy.NONE
    nonexistent: Policy = Policy.NONE
    strict_dkim: bool = False
    strict_spf: bool = False
    psd: str = "u"
    testing: bool = False
    defect: str = ""


_OCTETS = 4096  # of a record that is read at all; what is wanted of it fits in a tenth
_VERSION = re.compile(r"v[ \t]*=[ \t]*(?-i:DMARC1)[ \t]*(?:;|\Z)", re.IGNORECASE)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s,!]+(?:![0-9]+[kmgt]?)?", re.IGNORECASE)


def parse(text: str) -> Record | None:
    """A TXT record, None for one of another kind. Unknown tags and what is no tag are passed over, a wrong
    value is the tag's default; a tag that is there twice has no right value (RFC 6376 section 3.2)."""
    if len(text) <= _OCTETS:
        return _parsed(text)
    return Record(defect="DMARC record too long") if _VERSION.match(text) else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Record | None:
    version = _VERSION.match(text)
    if version is None:
        return None
    tags: dict[str, str] = {}
    for spec in text[version.end() :].split(";"):
        name, _, value = (part.strip(" \t").lower() for part in spec.partition("="))
        tags[name] = "" if name in tags else value
    flags = Record(
        strict_dkim=tags.get("adkim") == "s",
        strict_spf=tags.get("aspf") == "s",
        psd=psd if (psd := tags.get("psd")) in ("y", "n") else "u",
        testing=tags.get("t") == "y",
    )
    try:
        policy = Policy(tags.get("p", "none"))  # section 4.7: without p= it is none
        subdomains = Policy(tags.get("sp", policy))
        nonexistent = Policy(tags.get("np", subdomains))
    except ValueError:
        # Section 4.10.1: who asks for reports is taken for p=none, the others are left alone.
        reports = any(_URI.fullmatch(uri.strip()) for uri in tags.get("rua", "").split(","))
        return flags if reports else flags._replace(defect="malformed DMARC record")
    return flags._replace(policy=policy, subdomains=subdomains, nonexistent=nonexistent)


# --- the result ---


def check(author: Author, known: Sequence[Identifier], lookup: Lookup) -> tuple[Checked, float]:
    """(what DMARC says, monotonic seconds until which it holds). Raises Missing.

    Of several author domains (section 11.5) the strictest policy of those that fail counts, and a pass is one
    for all of them. Without a readable author nothing passes and nothing fails: permerror (section 4.4).
    """
    if author.defect:
        return Checked(Result.PERMERROR, reason=author.defect), FOR_EVER
    asked = _Asked(lookup)
    found = [_of_one(domain, known, asked) for domain in author.domains]
    return deciding(found), asked.expires


def deciding(found: Sequence[Checked]) -> Checked:
    """Of the results of several authors the one that counts for all."""
    return max(found, key=_weight, default=Checked(Result.NONE))


# Which of several authors decides; of equal ones the first.
_DECIDES = (Result.PASS, Result.NONE, Result.PERMERROR, Result.TEMPERROR, Result.FAIL)
_STRICTNESS = tuple(Policy)


def _weight(checked: Checked) -> tuple[int, int]:
    strictness = _STRICTNESS.index(checked.policy) if checked.policy is not None else -1
    return _DECIDES.index(checked.result), strictness if checked.result is Result.FAIL else 0


class _Trouble(Exception):  # noqa: N818
    """DNS did not answer: whatever depends on it is not known (section 5.3.6)."""


class _Asked:
    """`lookup`, and when the first of the answers it gave ends."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self.expires = FOR_EVER

    def __call__(self, name: str, rtype: str) -> Answer:
        """Raises _Trouble, Missing."""
        answer = self._lookup(name, rtype)
        self.expires = min(self.expires, answer.expires)
        if answer.kind in ("timeout", "servfail"):
            raise _Trouble
        return answer


def _of_one(author: str, known: Sequence[Identifier], asked: _Asked) -> Checked:
    if author.startswith("["):  # an address has no records
        return Checked(Result.NONE, author)
    try:
        at, record = _applied(author, asked)
    except _Trouble:
        return Checked(Result.TEMPERROR, author)
    if record is None:
        return Checked(Result.NONE, author)
    if record.defect:
        return Checked(Result.PERMERROR, author, record=at, reason=record.defect)
    aligned, doubt = _aligned(author, record, known, asked)
    try:
        policy = _policy(author, at, record, asked)
    except _Trouble:
        policy, doubt = None, True
    if aligned:
        return Checked(Result.PASS, author, policy, at, aligned)
    return Checked(Result.TEMPERROR if doubt else Result.FAIL, author, policy, at)


# --- alignment (section 4.10.2) ---


def _aligned(
    author: str, record: Record, known: Sequence[Identifier], asked: _Asked
) -> tuple[tuple[str, ...], bool]:
    """(the methods that authenticated for `author`, may another one have)."""
    methods: dict[str, None] = {}
    doubt = False
    for identifier in known:
        if identifier.method in methods:
            continue
        strict = record.strict_dkim if identifier.method == "dkim" else record.strict_spf
        try:
            if not _aligns(author, identifier, asked, strict=strict):
                continue
        except _Trouble:
            doubt = True
            continue
        if identifier.sure:
            methods[identifier.method] = None
        else:
            doubt = True
    return tuple(methods), doubt


def _aligns(author: str, identifier: Identifier, asked: _Asked, *, strict: bool) -> bool:
    """Raises _Trouble, Missing. What is not within the author's organizational domain cannot have the same
    one, so nobody is asked about it: an attacker's own DNS that is silent keeps nothing from being known."""
    if identifier.domain == author or (not identifier.domain and not identifier.sure):
        return True
    if strict or identifier.domain.rpartition(".")[2] != author.rpartition(".")[2]:
        return False
    organization = _walk(author, asked).organization
    if not f".{identifier.domain}".endswith(f".{organization}"):
        return False
    return _walk(identifier.domain, asked).organization == organization


# --- discovery (section 4.10) ---

_LABELS = 7  # what is left of a name with more before the walk goes on: eight questions in all


class _Walk(NamedTuple):
    """`records`: (domain, its record) from the longest name to the shortest."""

    records: tuple[tuple[str, Record], ...]
    organization: str


def _applied(author: str, asked: _Asked) -> tuple[str, Record | None]:
    """(the domain with the record to apply, the record): of the author's domain, else of its organizational
    domain, else of its public suffix (section 4.10.1). Raises _Trouble, Missing."""
    own = _record(author, asked)
    if own is not None:
        return author, own
    walk = _walk(author, asked)
    if not walk.records:
        return "", None
    found = dict(walk.records)
    at = walk.organization if walk.organization in found else walk.records[-1][0]
    return at, found[at]


def _walk(domain: str, asked: _Asked) -> _Walk:
    """The DNS tree walk from `domain` up. Raises _Trouble, Missing."""
    names = _upwards(domain)
    records = []
    for index, name in enumerate(names):
        try:
            record = _record(name, asked)
        except Missing:  # all that may follow is asked for at once
            raise Missing(*((f"_dmarc.{each}", "TXT") for each in names[index:])) from None
        if record is None:
            continue
        records.append((name, record))
        if record.psd != "u":
            break
    return _Walk(tuple(records), _organization(domain, records))


def _upwards(domain: str) -> list[str]:
    labels = domain.split(".")
    rest = labels[-_LABELS:] if len(labels) > _LABELS else labels[1:]
    return [domain, *(".".join(rest[index:]) for index in range(len(rest)))]


def _organization(domain: str, records: Sequence[tuple[str, Record]]) -> str:
    """Section 4.10.2: the last record decides, since the walk ends at psd=n and psd=y. Below a public suffix
    it is the name with one label more, and for the suffix itself, which has none more, its own."""
    if not records:
        return domain
    name, record = records[-1]
    if record.psd == "y":
        return ".".join(domain.split(".")[-name.count(".") - 2 :])
    return name


def _record(name: str, asked: _Asked) -> Record | None:
    """The one record of `name`; of several none counts. Raises _Trouble, Missing."""
    answer = asked(f"_dmarc.{name}", "TXT")
    found = [record for text in answer.records if (record := parse(str(text))) is not None]
    return found[0] if len(found) == 1 else None


def _policy(author: str, at: str, record: Record, asked: _Asked) -> Policy:
    """Section 4.10.1, and one step down with t=y (section 4.7). Raises _Trouble, Missing."""
    if at == author:
        policy = record.policy
    elif record.nonexistent is record.subdomains or asked(author, "A").kind != "nxdomain":
        policy = record.subdomains
    else:
        policy = record.nonexistent
    if record.testing:
        policy = _STRICTNESS[max(_STRICTNESS.index(policy) - 1, 0)]
    return policy
