"""DKIM (RFC 6376, 8301, 8463): a message and the key records that its signatures name -> a result for each.

The names of all keys are known from the header, so the caller finds the records first. dkimpy reads the tag
lists; canonicalisation and keys are in files of their own, which ARC uses too.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import NamedTuple

from dkim.util import InvalidTagValueList  # type: ignore[import-untyped]

from libs.mail.address import BadAddress, domain_name
from libs.mail.headers import Field, fields, lowered
from services.verify.canonical import Body, signed_fields, unsigned
from services.verify.keys import ALGORITHMS, Refused, decoded, key_of, listed, tag_list
from services.verify.keys import Answer as Answer
from services.verify.keys import Result as Result

HEAD_OCTETS, FIELDS, SIGNATURES = 128_000, 500, 8  # what is looked at; beyond the first two it is a permerror


class Checked(NamedTuple):
    """What became of one signature. `b`: the first octets of b= (RFC 6008); empty where it has none. Of what
    is no name, and may be as long as a header, there is the beginning."""

    result: Result
    reason: str = ""
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    b: str = ""


class Signature(NamedTuple):
    """One DKIM-Signature field. `refused`: it is out already, whatever key and body say."""

    field: Field
    tags: Mapping[bytes, bytes]
    refused: Refused | None

    def tag(self, name: bytes) -> str:
        return self.tags.get(name, b"").decode("utf-8", "replace")

    @property
    def key_name(self) -> str:
        """Where the key record is (section 3.6.2.1)."""
        return f"{self.tag(b's')}._domainkey.{self.tag(b'd')}"

    def checked(self, result: Result, reason: str = "") -> Checked:
        b = "".join(self.tag(b"b").split())[:8]
        domain, selector, algorithm = (self.tag(name)[:_NAME_OCTETS] for name in (b"d", b"s", b"a"))
        return Checked(result, reason, domain.lower(), selector, algorithm, b)


class Examined(NamedTuple):
    """What a header holds. `fields`: all of them, none where nothing is signed; `defect`: why nothing in it
    can be verified (permerror), "" where it can be; `more`: signatures beyond those looked at."""

    fields: tuple[Field, ...] = ()
    signatures: tuple[Signature, ...] = ()
    defect: str = ""
    more: int = 0

    @property
    def key_names(self) -> list[str]:
        """Of the records that verify() needs, top to bottom."""
        if self.defect:
            return []
        return [one.key_name for one in self.signatures if one.refused is None]


def examine(head: bytes, now: float) -> Examined:
    """Read a header (without the empty line). `now`: wall seconds UTC, for x=."""
    if len(head) > HEAD_OCTETS:
        return Examined(defect="header too large")
    low = lowered(head)
    plain = low.count(b"\nfrom:") == 1 and b"\nfrom " not in low
    signs = b"\ndkim-signature" in low or b"\narc-" in low
    if plain and not signs and low.count(b"\n") <= FIELDS:
        return Examined()
    found = tuple(islice(fields(head), FIELDS + 1))
    if len(found) > FIELDS:
        return Examined(defect="too many header fields")
    names = [field.name.lower() for field in found]
    signatures = [field for field, name in zip(found, names, strict=True) if name == b"dkim-signature"]
    return Examined(
        found,
        tuple(_signature(head, field, now) for field in signatures[:SIGNATURES]),
        _defect(head, found, names),
        max(0, len(signatures) - SIGNATURES),
    )


def verify(head: bytes, body: Body, examined: Examined, keys: Mapping[str, Answer]) -> tuple[Checked, ...]:
    """One result a signature, top to bottom; `keys`: TXT answers by `key_names`.

    Nothing for an unsigned message; one permerror for a header with a defect.
    """
    if examined.defect:
        return (Checked(Result.PERMERROR, examined.defect),)
    results = []
    for signature in examined.signatures:
        if signature.refused is not None:
            results.append(signature.checked(signature.refused.result, signature.refused.reason))
            continue
        try:
            check(head, body, examined.fields, signature, keys[signature.key_name])
            results.append(signature.checked(Result.PASS))
        except Refused as refused:
            results.append(signature.checked(refused.result, refused.reason))
    if examined.more:
        results.append(Checked(Result.POLICY, f"{examined.more} more signatures not looked at"))
    return tuple(results)


# --- reading ---

_DOMAIN = re.compile(rb"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_NAME_OCTETS = 253
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]++=*+[\s=]*+")
_FIELD_NAME = re.compile(rb"[!-9;-~]+")  # RFC 5322 section 2.2
_DIGITS = 76  # of a number (section 3.5)
_CANONICAL = frozenset((b"simple", b"relaxed"))


def _defect(head: bytes, found: Sequence[Field], names: Sequence[bytes]) -> str:
    # An mbox "From " line is what some senders leave in; signers and verifiers alike ignore it.
    if any(not field.name and not head.startswith(b"From ", field.start) for field in found):
        return "malformed header"
    if names.count(b"from") != 1:
        return "no From field" if b"from" not in names else "several From fields"
    return ""


def _signature(head: bytes, field: Field, now: float) -> Signature:
    try:
        tags = {**tag_list(head[field.value : field.end])}
    except InvalidTagValueList:
        return Signature(field, {}, Refused(Result.NEUTRAL, "malformed signature"))
    tags |= {name: _in_ascii(tags[name]) for name in (b"d", b"s", b"i") if name in tags}
    refused = None
    try:
        _check_version(tags)
        check_tags(tags, now)
        _check_names(listed(tags[b"h"]))
    except Refused as found:
        refused = found
    return Signature(field, tags, refused)


def _in_ascii(value: bytes) -> bytes:
    """A name, or the name behind an @, as A-labels (RFC 8616 section 5); what is no name stays as it is."""
    local, at, name = value.rpartition(b"@")
    if name.isascii():
        return value
    try:
        return local + at + domain_name(name.decode()).encode()
    except (UnicodeDecodeError, BadAddress):
        return value


def _check_version(tags: Mapping[bytes, bytes]) -> None:
    if tags.get(b"v") != b"1":
        raise Refused(Result.NEUTRAL, "unknown version" if b"v" in tags else "no v= in signature")


def check_tags(tags: Mapping[bytes, bytes], now: float) -> None:
    """Section 6.1.1, without the version, the names of h= and the key. Raises Refused."""
    if missing := [name.decode() for name in (b"a", b"b", b"bh", b"d", b"h", b"s") if name not in tags]:
        raise Refused(Result.NEUTRAL, f"no {missing[0]}= in signature")
    if tags[b"a"] == b"rsa-sha1":  # RFC 8301 section 3.1
        raise Refused(Result.PERMERROR, "rsa-sha1 is historic")
    if tags[b"a"] not in ALGORITHMS:
        raise Refused(Result.NEUTRAL, "unknown algorithm")
    if not is_name(tags[b"d"]) or not is_name(tags[b"s"]) or b"." not in tags[b"d"]:
        raise Refused(Result.NEUTRAL, "d= or s= is no name")
    if (
        not _CANONICAL.issuperset(tags.get(b"c", b"simple").split(b"/"))
        or tags.get(b"c", b"").count(b"/") > 1
    ):
        raise Refused(Result.NEUTRAL, "unknown canonicalization")
    if not (_BASE64.fullmatch(tags[b"b"]) and _BASE64.fullmatch(tags[b"bh"])):
        raise Refused(Result.NEUTRAL, "b= or bh= is no base64")
    if b"dns/txt" not in listed(tags.get(b"q", b"dns/txt")):
        raise Refused(Result.NEUTRAL, "unknown query method")
    numbers = [tags[name] for name in (b"l", b"t", b"x") if name in tags]
    if not all(number.isdigit() and len(number) <= _DIGITS for number in numbers):
        raise Refused(Result.NEUTRAL, "l=, t= or x= is no number")
    if b"t" in tags and b"x" in tags and int(tags[b"x"]) <= int(tags[b"t"]):
        raise Refused(Result.NEUTRAL, "x= is not after t=")
    if b"@" not in tags.get(b"i", b"@"):
        raise Refused(Result.NEUTRAL, "i= has no @")
    if not _within(_agent(tags), tags[b"d"].lower()):
        raise Refused(Result.PERMERROR, "i= is not within d=")
    if b"x" in tags and int(tags[b"x"]) < now:
        raise Refused(Result.PERMERROR, "signature expired")


def _check_names(names: Sequence[bytes]) -> None:
    if not all(map(_FIELD_NAME.fullmatch, names)):
        raise Refused(Result.NEUTRAL, "h= is no list of names")
    if b"from" not in names:
        raise Refused(Result.PERMERROR, "From is not signed")


def is_name(value: bytes) -> bool:
    """Can this be d= or s=?"""
    return _DOMAIN.fullmatch(value) is not None


def _agent(tags: Mapping[bytes, bytes]) -> bytes:
    """The domain of i=, by default d= (section 3.5)."""
    return tags.get(b"i", b"@" + tags[b"d"]).rpartition(b"@")[2].lower()


def _within(name: bytes, domain: bytes) -> bool:
    return name == domain or name.endswith(b"." + domain)


# --- verifying ---


def check(head: bytes, body: Body, found: Sequence[Field], signature: Signature, answer: Answer) -> None:
    """Section 6.1.3: does one signature hold? Raises Refused."""
    tags = signature.tags
    for_head, _, for_body = tags.get(b"c", b"simple").decode().partition("/")
    digest, length = body.hashed(for_body or "simple")
    signed = int(tags.get(b"l", str(length)))
    key = key_of(answer, tags[b"a"])
    if signed < length:  # section 8.2: what follows could be anybody's
        raise Refused(Result.POLICY, "l= leaves octets unsigned")
    if signed > length or digest != decoded(tags[b"bh"]):
        raise Refused(Result.FAIL, "body has changed")
    if key.strict and _agent(tags) != tags[b"d"].lower():
        raise Refused(Result.PERMERROR, "key does not allow i= below d=")
    relaxed = for_head == "relaxed"
    others = [field for field in found if field is not signature.field]  # section 3.5, h=
    octets = signed_fields(head, others, listed(tags[b"h"]), relaxed=relaxed)
    octets += unsigned(head, signature.field, relaxed=relaxed)
    key.check(decoded(tags[b"b"]), sha256(octets).digest())
