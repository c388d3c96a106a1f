"""DKIM (RFC 6376, 8301, 8463): a message and the key records that its signatures name -> a result for each.

The names of all keys are known from the header, so the caller finds the records first. dkimpy reads the tag
lists; canonicalisation and hashing are done here, in time linear in the message (dkimpy's are quadratic in
blanks and in names), RSA and Ed25519 by `cryptography`, with a bound on what a stranger's key may cost.
"""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from dkim.util import InvalidTagValueList, parse_tag_value  # type: ignore[import-untyped]

from libs.mail.headers import Field, fields

HEAD_OCTETS, FIELDS, SIGNATURES = 128_000, 500, 8  # what is looked at; beyond the first two it is a permerror
RSA_LEAST, RSA_MOST = 1024, 8192  # bits: RFC 8301 section 3.2, and a bound on what a stranger's key costs


class Answer(Protocol):
    """What libs/runtime/dns.py answers, as far as it is needed here: `kind` ok, nxdomain, nodata, timeout or
    servfail; a TXT record is its octets as latin-1."""

    @property
    def kind(self) -> str: ...
    @property
    def records(self) -> Sequence[str | tuple[int, str]]: ...


class Result(StrEnum):
    """RFC 8601 section 2.7.1. fail: the message is not what was signed; permerror: it can never be known;
    policy: a signature that we do not take; neutral: a signature that cannot be read."""

    PASS = "pass"
    FAIL = "fail"
    POLICY = "policy"
    NEUTRAL = "neutral"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class Checked(NamedTuple):
    """What became of one signature. `b`: the first octets of b= (RFC 6008); empty where it has none."""

    result: Result
    reason: str = ""
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    b: str = ""


class Refused(Exception):  # noqa: N818
    """Why a signature does not pass."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(result, reason)
        self.result, self.reason = result, reason


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
        return Checked(result, reason, self.tag(b"d").lower(), self.tag(b"s"), self.tag(b"a"), b)


class Examined(NamedTuple):
    """What a header holds. `defect`: why nothing in it can be verified (permerror), "" where it can be;
    `more`: signatures beyond those looked at."""

    fields: tuple[Field, ...] = ()
    signatures: tuple[Signature, ...] = ()
    defect: str = ""
    more: int = 0


def examine(head: bytes, now: float) -> Examined:
    """Read a header (without the empty line). `now`: wall seconds UTC, for x=."""
    if len(head) > HEAD_OCTETS:
        return Examined(defect="header too large")
    lowered = b"\n" + head.lower()
    plain = lowered.count(b"\nfrom:") == 1 and b"\nfrom " not in lowered
    if plain and b"\ndkim-signature" not in lowered and lowered.count(b"\n") <= FIELDS:
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


def verify(head: bytes, body: bytes, examined: Examined, keys: Mapping[str, Answer]) -> tuple[Checked, ...]:
    """One result a signature, top to bottom; `keys`: TXT answers by `key_name`, for all that are not refused.

    Nothing for an unsigned message; one permerror for a header with a defect.
    """
    if examined.defect:
        return (Checked(Result.PERMERROR, examined.defect),)
    digests: dict[str, tuple[bytes, int]] = {}
    results = []
    for signature in examined.signatures:
        if signature.refused is not None:
            results.append(signature.checked(signature.refused.result, signature.refused.reason))
            continue
        try:
            _verify(head, body, examined.fields, signature, keys[signature.key_name], digests)
            results.append(signature.checked(Result.PASS))
        except Refused as refused:
            results.append(signature.checked(refused.result, refused.reason))
    if examined.more:
        results.append(Checked(Result.POLICY, f"{examined.more} more signatures not looked at"))
    return tuple(results)


# --- reading ---

_DOMAIN = re.compile(rb"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]++=*+[\s=]*+")
_ALGORITHMS = {b"rsa-sha256": b"rsa", b"ed25519-sha256": b"ed25519"}
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
        tags = parse_tag_value(head[field.value : field.end])
    except InvalidTagValueList:
        return Signature(field, {}, Refused(Result.NEUTRAL, "malformed signature"))
    refused = None
    try:
        _check_tags(tags, now)
    except Refused as found:
        refused = found
    return Signature(field, tags, refused)


def _check_tags(tags: Mapping[bytes, bytes], now: float) -> None:
    """Section 6.1.1, without the key. Raises Refused."""
    if missing := [name.decode() for name in (b"v", b"a", b"b", b"bh", b"d", b"h", b"s") if name not in tags]:
        raise Refused(Result.NEUTRAL, f"no {missing[0]}= in signature")
    if tags[b"v"] != b"1":
        raise Refused(Result.NEUTRAL, "unknown version")
    if tags[b"a"] == b"rsa-sha1":  # RFC 8301 section 3.1
        raise Refused(Result.PERMERROR, "rsa-sha1 is historic")
    if tags[b"a"] not in _ALGORITHMS:
        raise Refused(Result.NEUTRAL, "unknown algorithm")
    if not _DOMAIN.fullmatch(tags[b"d"]) or not _DOMAIN.fullmatch(tags[b"s"]):
        raise Refused(Result.NEUTRAL, "d= or s= is no name")
    if (
        not _CANONICAL.issuperset(tags.get(b"c", b"simple").split(b"/"))
        or tags.get(b"c", b"").count(b"/") > 1
    ):
        raise Refused(Result.NEUTRAL, "unknown canonicalization")
    if not (_BASE64.fullmatch(tags[b"b"]) and _BASE64.fullmatch(tags[b"bh"])):
        raise Refused(Result.NEUTRAL, "b= or bh= is no base64")
    if b"dns/txt" not in _listed(tags.get(b"q", b"dns/txt")):
        raise Refused(Result.NEUTRAL, "unknown query method")
    numbers = [tags[name] for name in (b"l", b"t", b"x") if name in tags]
    if not all(number.isdigit() and len(number) < 20 for number in numbers):
        raise Refused(Result.NEUTRAL, "l=, t= or x= is no number")
    if b"from" not in _listed(tags[b"h"]):
        raise Refused(Result.PERMERROR, "From is not signed")
    if not _within(_agent(tags), tags[b"d"].lower()):
        raise Refused(Result.PERMERROR, "i= is not within d=")
    if b"x" in tags and int(tags[b"x"]) < now:
        raise Refused(Result.PERMERROR, "signature expired")


def _listed(value: bytes) -> list[bytes]:
    return [part.strip().lower() for part in value.split(b":")]


def _agent(tags: Mapping[bytes, bytes]) -> bytes:
    """The domain of i=, by default d= (section 3.5)."""
    return tags.get(b"i", b"@" + tags[b"d"]).rpartition(b"@")[2].lower()


def _within(name: bytes, domain: bytes) -> bool:
    return name == domain or name.endswith(b"." + domain)


# --- keys ---


class Key(NamedTuple):
    """A key record. `strict`: i= must be d= itself (t=s)."""

    public: RSAPublicKey | Ed25519PublicKey
    strict: bool


def _key(answer: Answer, algorithm: bytes) -> Key:
    """Section 6.1.2. Raises Refused."""
    if answer.kind in ("timeout", "servfail"):
        raise Refused(Result.TEMPERROR, "key not available")
    if answer.kind != "ok" or not answer.records:
        raise Refused(Result.PERMERROR, "no key for signature")
    records = [str(record) for record in answer.records]
    usable = [record for record in records if "p=" in record] or records
    got = _parsed_key(usable[0], algorithm)
    if isinstance(got, Refused):
        raise Refused(got.result, got.reason)
    return got


@lru_cache(maxsize=1024)
def _parsed_key(record: str, algorithm: bytes) -> Key | Refused:
    """Section 3.6.1. Remembered: the same few keys sign most mail."""
    try:
        tags = parse_tag_value(record.encode("latin-1"))
    except InvalidTagValueList:
        return Refused(Result.PERMERROR, "malformed key record")
    kind = _ALGORITHMS[algorithm]
    if tags.get(b"v", b"DKIM1") != b"DKIM1" or tags.get(b"k", b"rsa") != kind:
        return Refused(Result.PERMERROR, "key is of another kind")
    if b"sha256" not in _listed(tags.get(b"h", b"sha256")):
        return Refused(Result.PERMERROR, "key does not allow sha256")
    if not {b"*", b"email"} & set(_listed(tags.get(b"s", b"*"))):
        return Refused(Result.PERMERROR, "key is not for mail")
    if not b"".join(tags.get(b"p", b"").split()):
        return Refused(Result.PERMERROR, "key revoked" if b"p" in tags else "malformed key record")
    try:
        raw = b64decode(tags[b"p"])
        public = Ed25519PublicKey.from_public_bytes(raw) if kind == b"ed25519" else load_der_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        return Refused(Result.PERMERROR, "malformed key record")
    if isinstance(public, RSAPublicKey):
        if public.key_size < RSA_LEAST:
            return Refused(Result.POLICY, "key too short")
        if public.key_size > RSA_MOST or public.public_numbers().e.bit_length() > 64:
            return Refused(Result.POLICY, "key too large")
    elif not isinstance(public, Ed25519PublicKey):
        return Refused(Result.PERMERROR, "key is of another kind")
    return Key(public, b"s" in _listed(tags.get(b"t", b"")))


# --- hashing ---


def _single_blanks(text: bytes) -> bytes:
    """Each run of blanks and tabs as one blank. A pass halves every run, so there are at most log2(length) of
    them, all in C; a regular expression takes ten times as long on a large body."""
    text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def _verify(
    head: bytes,
    body: bytes,
    found: Sequence[Field],
    signature: Signature,
    answer: Answer,
    digests: dict[str, tuple[bytes, int]],
) -> None:
    """Section 6.1.3. Raises Refused. `digests`: of the body, by canonicalisation, for all signatures."""
    tags = signature.tags
    for_head, _, for_body = tags.get(b"c", b"simple").decode().partition("/")
    for_body = for_body or "simple"
    if for_body not in digests:
        canonical = relaxed_body(body) if for_body == "relaxed" else simple_body(body)
        digests[for_body] = sha256(canonical).digest(), len(canonical)
    digest, length = digests[for_body]
    signed = int(tags.get(b"l", str(length)))
    key = _key(answer, tags[b"a"])
    if signed < length:  # section 8.2: what follows could be anybody's
        raise Refused(Result.POLICY, "l= leaves octets unsigned")
    if signed > length or digest != _decoded(tags[b"bh"]):
        raise Refused(Result.FAIL, "body has changed")
    if key.strict and _agent(tags) != tags[b"d"].lower():
        raise Refused(Result.PERMERROR, "key does not allow i= below d=")
    hashed = sha256(_signed_fields(head, found, signature, relaxed=for_head == "relaxed")).digest()
    try:
        if isinstance(key.public, RSAPublicKey):
            key.public.verify(_decoded(tags[b"b"]), hashed, PKCS1v15(), Prehashed(SHA256()))
        else:
            key.public.verify(_decoded(tags[b"b"]), hashed)  # RFC 8463 section 3
    except InvalidSignature as error:
        raise Refused(Result.FAIL, "signature does not match") from error


def _decoded(value: bytes) -> bytes:
    try:
        return b64decode(b"".join(value.split()))
    except ValueError as error:
        raise Refused(Result.NEUTRAL, "b= or bh= is no base64") from error


def _signed_fields(head: bytes, found: Sequence[Field], signature: Signature, *, relaxed: bool) -> bytes:
    """Section 3.7: the fields that h= names, each name from the bottom up, then the signature without b=."""
    below: dict[bytes, list[Field]] = {}
    for field in found:
        below.setdefault(field.name.lower(), []).append(field)
    parts = []
    for name in _listed(signature.tags[b"h"]):
        if left := below.get(name):
            parts.append(_canonical(head, left.pop(), relaxed=relaxed))
    own = signature.field
    value = _without_b(head[own.value : own.end])
    unsigned = head[own.start : own.value] + value
    parts.append(
        _canonical(unsigned, Field(own.name, 0, own.value - own.start, len(unsigned)), relaxed=relaxed)
    )
    return b"".join(parts).removesuffix(b"\r\n")


def _without_b(value: bytes) -> bytes:
    """The tag list with an empty b=, all white space around its value gone too (section 3.5)."""
    specs = value.split(b";")
    for index, spec in enumerate(specs):
        name, equals, _ = spec.partition(b"=")
        if name.strip() == b"b":
            specs[index] = name + equals
    return b";".join(specs)


def _canonical(head: bytes, field: Field, *, relaxed: bool) -> bytes:
    """Section 3.4.1 and 3.4.2."""
    if not relaxed:
        return head[field.start : field.end]
    value = _single_blanks(head[field.value : field.end].replace(b"\r\n", b"")).strip(b" ")
    return field.name.lower() + b":" + value + b"\r\n"


def simple_body(body: bytes) -> bytes:
    """Section 3.4.3: without empty lines at the end; an empty body is one CR LF."""
    end = len(body)
    tail = len(body.rstrip(b"\r\n"))
    if body[tail:] == b"\r\n" * ((end - tail) // 2):
        end = tail
    else:  # single CRs or LFs in between: only whole CR LFs go
        while body.endswith(b"\r\n", 0, end):
            end -= 2
    return body[:end] + b"\r\n"


def relaxed_body(body: bytes) -> bytes:
    """Section 3.4.4: besides, blanks at line ends go, others become one; an empty body is empty."""
    if not body.endswith(b"\r\n"):
        body += b"\r\n"
    canonical = simple_body(_single_blanks(body).replace(b" \r\n", b"\r\n"))
    return b"" if canonical == b"\r\n" else canonical
