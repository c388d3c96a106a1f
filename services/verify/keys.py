"""The key record that a signature names (RFC 6376 section 3.6.1, 8301, 8463), for DKIM and ARC.

RSA and Ed25519 are checked by `cryptography`, with a bound on what a stranger's key may cost.
"""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from dkim.util import InvalidTagSpec, InvalidTagValueList, parse_tag_value  # type: ignore[import-untyped]

RSA_LEAST, RSA_MOST = 1024, 8192  # bits: RFC 8301 section 3.2, and a bound on what a stranger's key costs
RSA_EXPONENT = 32  # bits: 17 is what all use, and each more costs time
_RECORDS = 8  # texts at the name of a key that are looked at
_TAG = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
# How the DER of an RSA key begins (RFC 8017 appendix A.1): its modulus, or what says that it is one. Others
# are not opened: to look at the parameters of a Diffie-Hellman key takes tenths of a second.
_RSA = re.compile(
    rb"\x30(?:[\0-\x7f]|\x81.|\x82..|\x83...)(?:\x02|\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01)",
    re.DOTALL,
)
_REMEMBERED_OCTETS = 4096  # of a record; the longest key takes half of it
ALGORITHMS = {b"rsa-sha256": b"rsa", b"ed25519-sha256": b"ed25519"}


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


class Refused(Exception):  # noqa: N818
    """Why a signature does not pass."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(result, reason)
        self.result, self.reason = result, reason


class Key(NamedTuple):
    """A key record. `strict`: i= must be d= itself (t=s)."""

    public: RSAPublicKey | Ed25519PublicKey
    strict: bool

    def check(self, signature: bytes, digest: bytes) -> None:
        """`digest`: SHA-256 of what was signed; Ed25519 signs that (RFC 8463 section 3). Raises Refused."""
        try:
            if isinstance(self.public, RSAPublicKey):
                self.public.verify(signature, digest, PKCS1v15(), Prehashed(SHA256()))
            else:
                self.public.verify(signature, digest)
        except InvalidSignature as error:
            raise Refused(Result.FAIL, "signature does not match") from error


def key_of(answer: Answer, algorithm: bytes) -> Key:
    """Section 6.1.2. Raises Refused."""
    if answer.kind in ("timeout", "servfail"):
        raise Refused(Result.TEMPERROR, "key not available")
    if answer.kind != "ok" or not answer.records:
        raise Refused(Result.PERMERROR, "no key for signature")
    records = [str(record) for record in answer.records]
    usable = [record for record in records if "p=" in record] or records
    # Of several, which the RFC leaves open (section 3.6.2.2), the first that can be used.
    found = [_key(record, algorithm) for record in usable[:_RECORDS]]
    for key in found:
        if isinstance(key, Key):
            return key
    refused = found[0]
    assert isinstance(refused, Refused)
    raise Refused(refused.result, refused.reason)


def _key(record: str, algorithm: bytes) -> Key | Refused:
    return (_remembered_key if len(record) <= _REMEMBERED_OCTETS else _read_key)(record, algorithm)


def _read_key(record: str, algorithm: bytes) -> Key | Refused:
    """Section 3.6.1."""
    try:
        tags = tag_list(record.encode("latin-1"))
    except InvalidTagValueList:
        return Refused(Result.PERMERROR, "malformed key record")
    kind = ALGORITHMS[algorithm]
    if tags.get(b"v", b"DKIM1") != b"DKIM1" or tags.get(b"k", b"rsa") != kind:
        return Refused(Result.PERMERROR, "key is of another kind")
    if b"sha256" not in listed(tags.get(b"h", b"sha256")):
        return Refused(Result.PERMERROR, "key does not allow sha256")
    if not {b"*", b"email"} & set(listed(tags.get(b"s", b"*"))):
        return Refused(Result.PERMERROR, "key is not for mail")
    if not b"".join(tags.get(b"p", b"").split()):
        return Refused(Result.PERMERROR, "key revoked" if b"p" in tags else "malformed key record")
    try:
        raw = b64decode(tags[b"p"])
        public = Ed25519PublicKey.from_public_bytes(raw) if kind == b"ed25519" else _rsa_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        return Refused(Result.PERMERROR, "malformed key record")
    if isinstance(public, RSAPublicKey):
        if public.key_size < RSA_LEAST:
            return Refused(Result.POLICY, "key too short")
        if public.key_size > RSA_MOST:
            return Refused(Result.POLICY, "key too large")
        if public.public_numbers().e.bit_length() > RSA_EXPONENT:
            return Refused(Result.PERMERROR, "exponent of the key too large")
    return Key(public, b"s" in listed(tags.get(b"t", b"")))


def _rsa_key(raw: bytes) -> RSAPublicKey:
    """Raises ValueError, UnsupportedAlgorithm."""
    if not _RSA.match(raw):
        raise ValueError("not the DER of an RSA key")
    key = load_der_public_key(raw)
    assert isinstance(key, RSAPublicKey)  # it begins as one
    return key


_remembered_key = lru_cache(maxsize=1024)(_read_key)  # the same few keys sign most mail


def tag_list(value: bytes) -> Mapping[bytes, bytes]:
    """Section 3.2, with one more look at the names than dkimpy has. Raises InvalidTagValueList."""
    tags: dict[bytes, bytes] = parse_tag_value(value)
    if not all(map(_TAG.fullmatch, tags)):
        raise InvalidTagSpec(value)
    return tags


def listed(value: bytes) -> list[bytes]:
    """The members of a list with colons, lower case."""
    return [part.strip().lower() for part in value.split(b":")]


def decoded(value: bytes) -> bytes:
    """b= or bh= as octets. Raises Refused."""
    try:
        return b64decode(b"".join(value.split()))
    except ValueError as error:
        raise Refused(Result.NEUTRAL, "b= or bh= is no base64") from error
